"""What a masking system does, and the arithmetic of token indices that systems share.

Like the systems themselves it imports neither torch nor numpy: the configuration loads them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.masking import MaskingSystem, Reads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tats_ray.config import Config
    from tats_ray.models.mae import PatchEmbedding
    from tats_ray.models.samplers import Sampler, TrajectorySampler


class FixedSystem(MaskingSystem, Protocol):
    """A system that nothing trains."""

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        """Draws visible tokens, int64 [B, k]: distinct, in the order drawn where there is one.

        Args:
            noise: float32 [B, N], standard Gumbel, one row per clip.
            view: by `reads`: None, patch tokens [B, N, d], frames [B, 3, T, H, W] in [0, 1], or
                motion [B, T', 2 rows, 2 columns, 2] in pixels of the model input, x before y.
        """
        ...


class RolloutSystem(MaskingSystem, Protocol):
    """A system that draws by Gumbel-top-k from the policy of a sampler that rollouts train."""

    def build_sampler(self, token_width: int, critic: bool) -> TrajectorySampler:
        """A sampler with fresh weights over patch tokens of this width, with the methods of
        `TrajectorySampler`.

        Args:
            critic: whether its `value` is asked for, which is so with `rl.baseline=critic`.
        """
        ...


class StepSystem(MaskingSystem, Protocol):
    """A system that draws by Gumbel-top-k from the policy of a sampler that the model's own step
    trains."""

    def build_sampler(self, token_width: int) -> nn.Module:
        """A sampler with fresh weights over patch tokens of this width, with the methods of
        `tats_ray.models.samplers.Sampler`."""
        ...

    def loss(self, log_probs: Tensor, targets: Tensor, error: Tensor) -> Tensor:
        """Scalar loss of the sampler.

        Args:
            log_probs: float32 [B, N].
            targets: int64 [B, q], predicted masked tokens.
            error: float32 [B, q], their reconstruction errors.
        """
        ...


def select_visible(
    system: MaskingSystem, noise: Tensor, view: Tensor | None, sampler: Sampler | None
) -> Tensor:
    """Visible tokens of any system, int64 [B, k]; nothing is trained.

    Args:
        noise, view: as of `FixedSystem.select`.
        sampler: of a learned system.
    """
    if system.trained_by == "nothing":
        return cast(FixedSystem, system).select(noise, view)
    import torch

    assert sampler is not None, "a learned system draws from its sampler"
    assert view is not None, "a sampler reads the patch tokens"
    with torch.no_grad():
        log_probs = sampler.log_probs(view)
    return draw_without_replacement(log_probs, noise, system.count_visible())


@dataclass(frozen=True)
class SamplerView:
    """What a system or its sampler sees of clips' pixels."""

    reads: Reads
    grid: TokenGrid
    tubelet: int
    patch: int

    @staticmethod
    def of(config: Config) -> SamplerView:
        model = config.model
        return SamplerView(config.masking_system.reads, config.grid, model.tubelet, model.patch)

    def __call__(self, patches: Tensor, embedding: PatchEmbedding) -> Tensor:
        """By `reads` the patch tokens, or `pixel_view`: float [B, N, V, 3] in [0, 1] -> [B, N, d];
        or the frames that these are of, [B, 3, T, H, W].

        Args:
            embedding: of the autoencoder whose patch tokens they are.
        """
        if self.reads == "pixels":
            from tats_ray.models.tokens import pixel_view

            return pixel_view(patches, self.grid, self.tubelet, self.patch)
        if self.reads == "frames":
            from tats_ray.models.tokens import unpatchify

            return unpatchify(patches, self.grid, self.tubelet, self.patch)
        return embedding(patches)


def draw_without_replacement(log_probs: Tensor, noise: Tensor, count: int) -> Tensor:
    """Gumbel-top-k: `count` tokens from softmax(log_probs) without replacement, in drawn order.

    Args:
        log_probs: float32 [B, N] (any shift per row).
        noise: float32 [B, N], standard Gumbel.

    Returns:
        int64 [B, count]; the order follows Plackett-Luce (Kool et al. 2019).
    """
    return draw_evenly(log_probs + noise, count)


def draw_evenly(noise: Tensor, count: int) -> Tensor:
    """`count` places of [B, N] in random order, int64 [B, count]; every set is equally likely."""
    return noise.topk(count, dim=1, sorted=True).indices


def draw_from_top(score: Tensor, noise: Tensor, candidates: int, count: int) -> Tensor:
    """`count` of the `candidates` places with the highest scores, at random, int64 [B, count].

    Args:
        score: float [B, N]; which of equal scores are candidates is left to chance.
        noise: float32 [B, N], independent and alike at all places.
    """
    shuffle = noise.argsort(dim=1)
    order = score.gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
    best = shuffle.gather(1, order[:, :candidates])
    return best.gather(1, draw_evenly(noise.gather(1, best), count))


def tube(places: Tensor, grid: TokenGrid) -> Tensor:
    """The same places in every time slice: int64 [B, m] -> token indices [B, T' * m]."""
    return tokens_of_slices(places[:, None, :].expand(-1, grid.time, -1), grid)


def tokens_of_slices(places: Tensor, grid: TokenGrid) -> Tensor:
    """Places of each time slice: int64 [B, T', m] -> token indices [B, T' * m]."""
    import torch

    offsets = torch.arange(grid.time, device=places.device) * grid.per_slice
    return (places + offsets[None, :, None]).flatten(1)


def token_speed(motion: Tensor) -> Tensor:
    """Mean length of the 2 x 2 displacements of each token, in their unit: float
    [B, T', 2 rows, 2 columns, 2] -> [B, T', rows * columns]."""
    from einops import reduce

    return reduce(motion.norm(dim=-1), "b t (r p) (c q) -> b t (r c)", "mean", p=2, q=2)
