"""What a model does with held-out clips: masks, reconstructions, errors, enrichment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tats_ray.config import Config
from tats_ray.data.randomness import Stream, gumbel_rows
from tats_ray.evaluation.enrichment import Enrichment, enrichment
from tats_ray.evaluation.held_out import HeldOut
from tats_ray.masking.build import build_masker
from tats_ray.masking.random import RandomMasker
from tats_ray.models.mae import MaskedAutoencoder, build_mae, target_index
from tats_ray.models.sampler import TrajectorySampler, build_sampler
from tats_ray.models.state import load_model_state
from tats_ray.models.tokens import gather_tokens, scatter_tokens, unpatchify
from tats_ray.training.checkpoint import TrainingState

_HELD_OUT = 1 << 40  # clip indices that no training clip reaches
_BATCH = 16


@dataclass(frozen=True)
class Inspection:
    """One batch of clips as a masker and the autoencoder see them.

    Attributes:
        pixels: float32 [B, 3, T, S, S], the clips.
        visible: int64 [B, k].
        log_policy: float32 [B, N] of a learned sampler, or None.
        reconstruction: float32 [B, 3, T, S, S]; visible tokens show the clip itself.
        error: float32 [B, N], reconstruction error of the masked tokens, 0 at visible ones.
    """

    pixels: Tensor
    visible: Tensor
    log_policy: Tensor | None
    reconstruction: Tensor
    error: Tensor


class Inspector:
    """A trained state, rebuilt on the CPU of the calling process."""

    def __init__(self, config: Config, state: TrainingState) -> None:
        self.config = config
        self.mae: MaskedAutoencoder = build_mae(config.model, config.grid, config.run.seed).eval()
        load_model_state(self.mae, state.train.mae)
        self.sampler: TrajectorySampler | None = None
        if state.policy is not None:
            self.sampler = build_sampler(
                config.masking.sampler, config.model.width, config.grid, config.run.seed
            ).eval()
            load_model_state(self.sampler, state.policy.sampler)

    @torch.no_grad()
    def select(self, patches: Tensor, first: int) -> tuple[Tensor, Tensor | None]:
        """Visible tokens int64 [B, k] of the run's masker, and its policy if it learns one."""
        config, noise = self.config, _noise(self.config, first, len(patches))
        tokens = self.mae.patch_embedding(patches)
        visible = build_masker(config, self.sampler).select(noise, tokens)
        return visible, None if self.sampler is None else self.sampler.log_probs(tokens)

    @torch.no_grad()
    def inspect(self, pixels: Tensor) -> Inspection:
        """Masks and reconstructs clips, float32 [B, 3, T, S, S]."""
        patches = self.mae.patches(pixels)
        visible, log_policy = self.select(patches, 0)
        tokens = self.config.grid.tokens
        targets = target_index(visible, tokens, tokens - visible.shape[1], None)
        result = self.mae(patches, visible.sort(dim=1).values, targets)
        drawn = _in_pixel_scale(result.prediction, gather_tokens(patches, targets), self.config)
        filled = scatter_tokens(drawn, targets, tokens) + scatter_tokens(
            gather_tokens(patches, visible), visible, tokens
        )
        section = self.config.model
        return Inspection(
            pixels=pixels,
            visible=visible,
            log_policy=log_policy,
            reconstruction=unpatchify(
                filled, self.config.grid, section.tubelet, section.patch
            ).clamp(0, 1),
            error=scatter_tokens(result.error, targets, tokens),
        )

    def enrichment(self, clips: HeldOut) -> Enrichment | None:
        """How the run's masker treats moving and static objects; None without truth."""
        visible = torch.cat(
            [
                self.select(self.mae.patches(clips.pixels[start : start + _BATCH]), start)[0]
                for start in range(0, len(clips), _BATCH)
            ]
        )
        return _enrichment(visible, clips)


def random_enrichment(config: Config, clips: HeldOut) -> Enrichment | None:
    """The same figure for random masks: 1.0 up to chance."""
    masker = RandomMasker(config.visible)
    return _enrichment(masker.select(_noise(config, 0, len(clips))), clips)


def _enrichment(visible: Tensor, clips: HeldOut) -> Enrichment | None:
    if clips.moving is None or clips.static is None:
        return None
    return Enrichment(enrichment(visible, clips.moving), enrichment(visible, clips.static))


def _noise(config: Config, first: int, rows: int) -> Tensor:
    seed, tokens = config.run.seed, config.grid.tokens
    return torch.from_numpy(gumbel_rows(seed, Stream.MASK, _HELD_OUT + first, rows, tokens))


def _in_pixel_scale(prediction: Tensor, patches: Tensor, config: Config) -> Tensor:
    """Undoes the target's normalisation with the true patch statistics, as is customary."""
    values = prediction.view_as(patches)
    section = config.model.target
    if section.normalize == "none":
        return values
    dims = (-2,) if section.normalize == "channel" else (-2, -1)
    mean = patches.mean(dim=dims, keepdim=True)
    std = patches.var(dim=dims, keepdim=True).sqrt()
    return values * (std + section.epsilon) + mean
