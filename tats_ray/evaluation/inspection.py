"""What a model does with held-out clips: masks, reconstructions, errors, enrichment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tats_ray.config import Config
from tats_ray.config.masking import MOTION_READS
from tats_ray.data.randomness import Stream, gumbel_rows
from tats_ray.evaluation.held_out import Enrichment, HeldOut
from tats_ray.masking.selection import (
    RolloutSystem,
    SamplerView,
    StepSystem,
    draw_evenly,
    select_visible,
    token_speed,
)
from tats_ray.models.mae import MaskedAutoencoder, build_mae, target_index
from tats_ray.models.samplers import Sampler
from tats_ray.models.state import State, load_model_state
from tats_ray.models.tokens import gather_tokens, scatter_tokens, target_scale, unpatchify
from tats_ray.training.checkpoint import AVERAGE, RunState

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
    objects: Tensor | None = None  # bool [B, 2, T, S, S], as of `HeldOut`
    enrichment: tuple[Enrichment, ...] | None = None  # of each clip, where the truth is known


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
        noise = held_out_noise(self.config, first, len(clips))
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
    def inspect(self, clips: HeldOut, first: int = 0) -> Inspection:
        """Masks and reconstructs clips; `first` as of `select`."""
        patches = self.mae.patches(clips.pixels)
        visible, log_probs = self.select(clips, first)
        speed = None if clips.motion is None else token_speed(clips.motion).flatten(1)
        reconstruction = error = None
        if self.config.model.target.weight:
            reconstruction, error = self._reconstruct(patches, visible)
        single = [
            clips.rows(row, row + 1).enrichment(visible[row : row + 1]) for row in range(len(clips))
        ]
        known = tuple(found for found in single if found is not None) or None
        return Inspection(
            clips.pixels, visible, log_probs, speed, reconstruction, error, clips.objects, known
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


def learned_sampler(config: Config, *, critic: bool) -> nn.Module:
    """A sampler of the run's system with fresh weights, in evaluation mode.

    Args:
        critic: whether it has one, where rollouts train it.
    """
    system, width = config.masking_system, config.sampler_input_width
    if config.learns_by_rollouts:
        return cast(RolloutSystem, system).build_sampler(width, critic).eval()
    return cast(StepSystem, system).build_sampler(width).eval()


def learned_weights(state: RunState) -> State:
    """Weights of the sampler that a run has learned; empty where it learns none."""
    if state.policy is not None:
        return state.policy.sampler
    prefix = "sampler."
    auxiliary = state.trainer.files.get("auxiliary", {})
    return {k.removeprefix(prefix): v for k, v in auxiliary.items() if k.startswith(prefix)}


def _sampler(config: Config, state: RunState) -> Sampler | None:
    """The learned policy of the run, if it has one."""
    if state.policy is None and not config.learns_in_step:
        return None
    sampler = learned_sampler(config, critic=config.rl.baseline == "critic")
    load_model_state(sampler, learned_weights(state))
    return cast(Sampler, sampler)


def random_enrichment(config: Config, clips: HeldOut) -> Enrichment | None:
    """The same for random masks: 1.0 up to chance."""
    return clips.enrichment(draw_evenly(held_out_noise(config, 0, len(clips)), config.visible))


def held_out_noise(config: Config, first: int, rows: int) -> Tensor:
    """Gumbel noise of draws that no training clip sees, float32 [rows, N].

    Args:
        first: place of the first clip among all held-out ones.
    """
    seed, tokens = config.run.seed, config.grid.tokens
    return torch.from_numpy(gumbel_rows(seed, Stream.MASK, _HELD_OUT + first, rows, tokens))
