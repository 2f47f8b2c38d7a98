"""TATS (Rai, Min et al. 2025): visible tokens are drawn from a policy that PPO trains.

What the paper leaves open is a decision (docs/systems.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from tats_ray.config.geometry import TokenGrid, visible_per_clip
from tats_ray.config.masking import Reads, RolloutSettings, TrainedBy
from tats_ray.config.settings import Settings

if TYPE_CHECKING:
    from tats_ray.models.samplers import TrajectorySampler


class SamplerSettings(Settings):
    """Actor and critic of TATS: trajectory attention -> linear."""

    reads: Literal["tokens", "pixels"] = "pixels"
    """Averaged pixels and their change over time, or the autoencoder's patch tokens."""
    width: int = Field(64, ge=8)
    """Width of the sampler's tokens."""
    heads: int = Field(2, ge=1)
    """Attention heads."""
    mlp: bool = False
    """Whether a feed-forward part follows the attention."""
    pool: int = Field(2, ge=1)
    """Side of the groups of tokens that attend to one another as one; attention then costs pool^4
    times less."""
    shared_trunk: bool = False
    """Whether actor and critic share their blocks, at half the cost; there is a critic with
    `rl.baseline=critic` only."""

    @model_validator(mode="after")
    def heads_divide_width(self) -> SamplerSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        return self


class TATSSettings(RolloutSettings):
    sampler: SamplerSettings = SamplerSettings()


class TATS:
    """Looks at all tokens by trajectory attention."""

    Settings = TATSSettings
    reads: Reads = "tokens"
    trained_by: TrainedBy = "rollouts"

    def __init__(self, settings: TATSSettings, grid: TokenGrid) -> None:
        self.settings = settings
        self.grid = grid
        self.reads = settings.sampler.reads

    def count_visible(self) -> int:
        return visible_per_clip(self.grid.tokens, self.settings.ratio)

    def build_sampler(self, token_width: int, critic: bool) -> TrajectorySampler:
        from tats_ray.models.samplers import TrajectorySampler

        form = self.settings.sampler
        trunk: Literal["shared", "own"] = "shared" if form.shared_trunk else "own"
        return TrajectorySampler(
            token_width,
            self.grid,
            width=form.width,
            heads=form.heads,
            mlp=form.mlp,
            critic=trunk if critic else "none",
            pool=form.pool,
        )
