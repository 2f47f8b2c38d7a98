"""What a model does with held-out clips: masks, reconstructions, errors, enrichment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from tats_ray.config import Config
from tats_ray.config.masking import MOTION_READS
from tats_ray.data.randomness import Stream, gumbel_rows
from tats_ray.evaluation.held_out import Enrichment, HeldOut
from tats_ray.masking.selection import (
    SamplerView,
    StepSystem,
    draw_evenly,
    select_visible,
    token_speed,
)
from tats_ray.models.mae import MaskedAutoencoder, build_mae, target_index
from tats_ray.models.samplers import Sampler
from tats_ray.models.state import load_model_state
from tats_ray.models.tokens import gather_tokens, scatter_tokens, target_scale, unpatchify
from tats_ray.training.checkpoint import AVERAGE, RunState
from tats_ray.training.pretraining_model import build_policy

_HELD_OUT = 1 << 40  # clip indices that no training clip reaches
_BATCH = 16


@dataclass(frozen=True)
class Inspection:
    """One batch of clips as a masker and the autoencoder see them.

    Without pixels as a target there are neither a reconstruction nor errors.
    """

    pixels: Tensor  # float32 [B, 3, T, S, S], the clips
    visible: Tensor  # int64 [B, k]
    log_probs: Tensor | None  # float32 [B, N] of a learned sampler
    speed: Tensor | None  # float32 [B, N], pixels per token, where the masker or a target reads it
    reconstruction: Tensor | None  # float32 [B, 3, T, S, S]; visible tokens show the clip itself
    error: Tensor | None  # float32 [B, N], of the masked tokens; 0 at visible ones
    objects: Tensor | None = None  # bool [B, T, S, S], pixels of objects that move, where known


class Inspector:
    """A trained state, rebuilt on the CPU of the calling process."""

    def __init__(self, config: Config, state: RunState) -> None:
        self.config = config
        self.mae: MaskedAutoencoder = build_mae(config.model, config.grid, config.run.seed).eval()
        files = state.trainer.files
        load_model_state(self.mae, files.get(AVERAGE, files["mae"]))
        self.sampler = _sampler(config, state)

    @torch.no_grad()
    def select(self, clips: HeldOut, first: int) -> tuple[Tensor, Tensor | None]:
        """Visible tokens int64 [B, k] of the run's masker, and its policy if it learns one.

        Args:
            first: place of the first clip among all held-out ones.
        """
        noise = _noise(self.config, first, len(clips))
        system, sampler = self.config.masking_system, self.sampler
        if system.reads == "nothing":
            return select_visible(system, noise, None, sampler), None
        if system.reads in MOTION_READS:
            return select_visible(system, noise, clips.motion, sampler), None
        patches = self.mae.patches(clips.pixels)
        view = SamplerView.of(self.config)(patches, self.mae.patch_embedding)
        visible = select_visible(system, noise, view, sampler)
        return visible, None if sampler is None else sampler.log_probs(view)

    @torch.no_grad()
    def inspect(self, clips: HeldOut) -> Inspection:
        """Masks and reconstructs clips."""
        patches = self.mae.patches(clips.pixels)
        visible, log_probs = self.select(clips, 0)
        speed = None if clips.motion is None else token_speed(clips.motion).flatten(1)
        reconstruction = error = None
        if self.config.model.target.weight:
            reconstruction, error = self._reconstruct(patches, visible)
        return Inspection(
            clips.pixels, visible, log_probs, speed, reconstruction, error, clips.objects
        )

    def _reconstruct(self, patches: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, T, S, S] and the error of each token [B, N]."""
        grid, settings = self.config.grid, self.config.model
        targets = target_index(visible, grid.tokens, grid.tokens - visible.shape[1], None)
        result = self.mae(patches, visible.sort(dim=1).values, targets)
        chosen = self.mae.predicted_pixels(patches, targets)
        # Back from the target's normalisation, by the true patch statistics, as is customary.
        mean, scale = target_scale(chosen, settings.target)
        drawn = result.prediction.view_as(chosen) * scale + mean
        # Frames that are not predicted show the one before.
        by_frame = drawn.unflatten(2, (-1, settings.patch**2))
        repeats = settings.tubelet // by_frame.shape[2]
        drawn = by_frame.repeat_interleave(repeats, dim=2).flatten(2, 3)
        filled = scatter_tokens(drawn, targets, grid.tokens) + scatter_tokens(
            gather_tokens(patches, visible), visible, grid.tokens
        )
        pixels = unpatchify(filled, grid, settings.tubelet, settings.patch).clamp(0, 1)
        return pixels, scatter_tokens(result.error, targets, grid.tokens)

    def enrichment(self, clips: HeldOut) -> Enrichment | None:
        """How the run's masker treats moving and static objects; None without truth."""
        starts = range(0, len(clips), _BATCH)
        drawn = [self.select(clips.rows(start, start + _BATCH), start)[0] for start in starts]
        return clips.enrichment(torch.cat(drawn))


def _sampler(config: Config, state: RunState) -> Sampler | None:
    """The learned policy of the run, if it has one."""
    if state.policy is not None:
        sampler = build_policy(config).eval()
        load_model_state(sampler, state.policy.sampler)
        return sampler
    if not config.learns_in_step:
        return None
    system = cast(StepSystem, config.masking_system)
    joint = system.build_sampler(config.sampler_input_width).eval()
    weights = {
        name.removeprefix("sampler."): value
        for name, value in state.trainer.files["auxiliary"].items()
        if name.startswith("sampler.")
    }
    load_model_state(joint, weights)
    return cast(Sampler, joint)


def random_enrichment(config: Config, clips: HeldOut) -> Enrichment | None:
    """The same for random masks: 1.0 up to chance."""
    return clips.enrichment(draw_evenly(_noise(config, 0, len(clips)), config.visible))


def _noise(config: Config, first: int, rows: int) -> Tensor:
    seed, tokens = config.run.seed, config.grid.tokens
    return torch.from_numpy(gumbel_rows(seed, Stream.MASK, _HELD_OUT + first, rows, tokens))
