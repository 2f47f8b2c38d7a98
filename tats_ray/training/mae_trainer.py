"""The autoencoder being trained: model, optimiser and step, on one device of any mode."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tats_ray.config import Config
from tats_ray.config.masking import MOTION_READS
from tats_ray.data.clips import Clips
from tats_ray.data.randomness import Stream, torch_seed
from tats_ray.masking.selection import (
    SamplerView,
    draw_evenly,
    draw_without_replacement,
    select_visible,
)
from tats_ray.models.mae import build_mae
from tats_ray.models.numerics import ALONE, Ranks, autocast, spread
from tats_ray.models.optimizer import (
    GuardedOptimizer,
    WeightAverage,
    build_adamw,
    learning_rate,
)
from tats_ray.models.samplers import Sampler
from tats_ray.models.state import State, load_model_state, model_state
from tats_ray.rl.rollout import Rollout, join_rollouts
from tats_ray.training.checkpoint import AVERAGE
from tats_ray.training.initial_weights import load_initial_weights
from tats_ray.training.policy import build_inputs
from tats_ray.training.pretraining_model import StepOutput, build_pretraining_model
from tats_ray.training.reports import StepReport, TrainerState
from tats_ray.training.trainer import (
    Masks,
    StepMetrics,
    Wrap,
    in_parts,
    prepared,
    unwrapped,
)

_MAE = "mae."  # prefix of the autoencoder's weights in `PretrainingModel`


class _Draw(NamedTuple):
    """Token sets from the policy, before their errors are known."""

    visible: Tensor  # int64 [b, k], as drawn
    log_probs: Tensor  # float32 [b, N]
    view: Tensor  # float [b, N, d], what the policy saw


class MAETrainer:
    """One rank's share of the autoencoder's training; `step` counts finished steps."""

    def __init__(self, config: Config, device: torch.device, wrap: Wrap = unwrapped) -> None:
        """Args: wrap: makes the model data-parallel; its gradient then equals that of the global
        mean, because every rank has as many clips.

        Raises:
            FeatureEncoderError: the encoder of a feature target cannot be had.
            CheckpointError: `train.initial_weights` is not of this model.
        """
        self.config = config
        self.device = device
        self.inputs = build_inputs(config)
        self._view = SamplerView.of(config)
        self._encoder, width, target = None, None, config.model.feature_target
        if target.encoder:
            from tats_ray.models.features import FeatureEncoder

            self._encoder = FeatureEncoder(target, config.grid, config.data.size, device)
            width = self._encoder.width
        self.mae = build_mae(config.model, config.grid, config.run.seed)
        self.parts = build_pretraining_model(config, self.mae, width)
        if config.train.initial_weights is not None:
            load_initial_weights(self.parts, config.model, config.train.initial_weights)
        train = config.train
        self.model = prepared(self.parts, train, device, wrap)
        betas = (train.betas[0], train.betas[1])
        adamw = build_adamw(self.parts, train.lr, train.weight_decay, betas)
        self.optimizer = GuardedOptimizer(adamw, train.gradient_clip, train.skip_nonfinite)
        self.optimizer.watch(self.model)
        self._average = None
        if train.ema_decay is not None:
            self._average = WeightAverage(self.mae, train.ema_decay)
        self.step = 0
        self._metrics = StepMetrics(train, self.optimizer, "autoencoder")

    def train_step(self, clips: Clips, masks: Masks | None = None) -> Rollout | None:
        """Reconstructs the masked tokens of this rank's clips and takes one optimiser step.

        Args:
            masks: None where the system has no policy (yet).

        Returns:
            With `rl.rewards=training` what was drawn from the policy, and the errors.
        """
        self.optimizer.zero_grad()
        losses, rollouts = [], []
        for start, part in in_parts(self.model, clips, self.config.train.accumulate):
            mine = None if masks is None else masks.rows(start, start + len(part))
            found, rollout = self._backward(part, mine)
            losses.append(found)
            if rollout is not None:
                rollouts.append(rollout)
        norm = self.optimizer.step(learning_rate(self.config.train.schedule, self.step))
        if self._average is not None:
            self._average.update(self.mae)
        mean = {name: torch.stack([f[name] for f in losses]).mean() for name in losses[0]}
        self._metrics.add(mean | {"gradient_norm": norm}, clips.stream_indices)
        self.step += 1
        return join_rollouts(rollouts) if rollouts else None

    def visible(self, clips: Clips, masks: Masks | None) -> Tensor:
        """Visible tokens of all clips, int64 [b, k]: what was rolled out, and for the other clips
        what the system's masker draws."""
        pixels = self.inputs.pixels(clips, self.device)
        return self._visible(clips, self.mae.patches(pixels), masks)

    def weights(self) -> State:
        return model_state(self.mae)

    def reports(self, ranks: Ranks = ALONE) -> list[StepReport]:
        return self._metrics.read(self.step, ranks)

    def state(self) -> TrainerState:
        files = {"mae": model_state(self.mae), "mae_optimizer": self.optimizer.state(self.parts)}
        weights = model_state(self.parts)
        if others := {k: value for k, value in weights.items() if not k.startswith(_MAE)}:
            files["auxiliary"] = others
        if self._average is not None:
            files[AVERAGE] = model_state(self._average.model)
        return TrainerState(self.step, files)

    def load(self, state: TrainerState) -> None:
        weights = {f"{_MAE}{name}": value for name, value in state.files["mae"].items()}
        load_model_state(self.parts, weights | state.files.get("auxiliary", {}))
        self.optimizer.load(self.parts, state.files["mae_optimizer"])
        if self._average is not None:
            load_model_state(self._average.model, state.files[AVERAGE])
        self.step = state.step

    def _backward(
        self, clips: Clips, masks: Masks | None
    ) -> tuple[dict[str, Tensor], Rollout | None]:
        """Forward and backward pass of a part of the step; returns its loss and the terms of it,
        scalars on the device, and with `rl.rewards=training` what the policy learns from."""
        pixels = self.inputs.pixels(clips, self.device)
        patches = self.mae.patches(pixels)
        drawn = None
        if self.config.learns_in_step:  # its dropout: the same after a resume
            torch.manual_seed(torch_seed(self.config.run.seed, Stream.DROPOUT, clips.first))
            choice = self._mask_noise(clips)  # of the draw inside the step
        elif masks is not None and self.config.trained_on_own_errors:
            drawn = self._draw(clips, patches, masks)
            choice = drawn.visible
        else:
            choice = self._visible(clips, patches, masks)
        output = self._reconstruct(clips, pixels, patches, choice)
        losses = output.losses
        loss = torch.stack(list(losses.values())).sum()
        spread(loss / self.config.train.accumulate).backward()
        found = {"loss": loss.detach()}
        if len(losses) > 1:
            found |= {f"loss/{name}": term.detach() for name, term in losses.items()}
        if drawn is None or masks is None:
            return found, None
        return found, self._scored(drawn, clips.first, masks.policy_version, patches, output)

    def _reconstruct(
        self, clips: Clips, pixels: Tensor, patches: Tensor, choice: Tensor
    ) -> StepOutput:
        self.model.train()
        with autocast(self.config.train.precision, self.device):
            return self.model(
                patches,
                choice,
                self.inputs.target_noise(clips.first, len(clips), self.device),
                self.inputs.motion(clips, self.device),
                None if self._encoder is None else self._encoder(pixels),
            )

    def _draw(self, clips: Clips, patches: Tensor, masks: Masks) -> _Draw:
        """Draws a token set of every clip from the policy."""
        config, sampler = self.config, masks.sampler
        assert sampler is not None, "the policy draws for all clips"
        view = self._sampler_input(patches)
        with torch.no_grad(), autocast(config.train.precision, self.device):
            log_probs = sampler.log_probs(view)
        visible = draw_without_replacement(log_probs, self._mask_noise(clips), config.visible)
        return _Draw(visible, log_probs, view)

    @torch.no_grad()
    def _scored(
        self, drawn: _Draw, first: int, policy_version: int, patches: Tensor, output: StepOutput
    ) -> Rollout:
        """The draw with the errors that the step's forward pass met."""
        assert output.error is not None, "pixels are a target"
        error = output.error
        if self.config.rl.reward == "copy_clipped_error":
            error = torch.minimum(error, self.mae.copy_error(patches, output.targets))
        return Rollout(
            first=first,
            policy_version=policy_version,
            mae_version=self.step,
            visible=drawn.visible[:, None],
            targets=output.targets[:, None],
            error=error[:, None],
            old_log_probs=drawn.log_probs,
            view=drawn.view,
        )

    def _visible(self, clips: Clips, patches: Tensor, masks: Masks | None) -> Tensor:
        rolled_out = None if masks is None else masks.rollout_visible
        if masks is None or rolled_out is None:
            return self._fill_visible(clips, patches, None)
        rolled_out = rolled_out.to(self.device)
        count = len(rolled_out)
        if count == len(clips):
            return rolled_out
        others = clips.rows(count, len(clips))
        return torch.cat([rolled_out, self._fill_visible(others, patches[count:], masks.sampler)])

    def _fill_visible(self, clips: Clips, patches: Tensor, sampler: Sampler | None) -> Tensor:
        """Visible tokens of clips that were not rolled out, int64 [b, k]; at random where the
        system learns by rollouts and has no policy yet."""
        config, noise = self.config, self._mask_noise(clips)
        if config.learns_by_rollouts and sampler is None:
            return draw_evenly(noise, config.visible)
        system, view = config.masking_system, None
        if system.reads in MOTION_READS:
            view = self.inputs.motion(clips, self.device)
        elif system.reads != "nothing":
            view = self._sampler_input(patches)
        return select_visible(system, noise, view, sampler)

    @torch.no_grad()
    def _sampler_input(self, patches: Tensor) -> Tensor:
        """What a system sees of clips' pixels, as `SamplerView`."""
        with autocast(self.config.train.precision, self.device):
            return self._view(patches, self.mae.patch_embedding)

    def _mask_noise(self, clips: Clips) -> Tensor:
        return self.inputs.mask_noise(clips.first, len(clips), self.device)
