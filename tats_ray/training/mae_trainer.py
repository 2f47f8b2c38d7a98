"""The autoencoder being trained: model, optimiser and step, on one device of any mode."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.data.randomness import Stream, torch_seed
from tats_ray.masking.selection import draw_evenly, select_visible
from tats_ray.models.features import FeatureEncoder
from tats_ray.models.mae import build_mae
from tats_ray.models.numerics import ALONE, Ranks, autocast, spread
from tats_ray.models.optimizer import GuardedOptimizer, build_adamw, learning_rate
from tats_ray.models.samplers import Sampler
from tats_ray.models.state import State, load_model_state, model_state
from tats_ray.training.initial_weights import load_initial_weights
from tats_ray.training.policy import build_inputs
from tats_ray.training.pretraining_model import build_pretraining_model
from tats_ray.training.trainer import (
    Masks,
    StepMetrics,
    StepReport,
    TrainerState,
    Wrap,
    unwrapped,
)

_MAE = "mae."  # prefix of the autoencoder's weights in `PretrainingModel`


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
        self._encoder, width, target = None, None, config.model.feature_target
        if target.encoder:
            self._encoder = FeatureEncoder(target, config.grid, config.data.size, device)
            width = self._encoder.width
        self.mae = build_mae(config.model, config.grid, config.run.seed)
        self.parts = build_pretraining_model(config, self.mae, width)
        if config.train.initial_weights is not None:
            load_initial_weights(self.parts, config.model, config.train.initial_weights)
        self.parts.to(device)
        self.model = wrap(self.parts)
        train = config.train
        betas = (train.betas[0], train.betas[1])
        adamw = build_adamw(self.parts, train.lr, train.weight_decay, betas)
        self.optimizer = GuardedOptimizer(adamw, train.gradient_clip, train.skip_nonfinite)
        self.optimizer.watch(self.model)
        self.step = 0
        self._metrics = StepMetrics(train, self.optimizer, "autoencoder")

    def train_step(self, clips: Clips, masks: Masks | None = None) -> None:
        """Reconstructs the masked tokens of this rank's clips and takes one optimiser step; `masks`
        is None where there were no rollouts."""
        config = self.config
        if config.learns_in_step:  # its dropout: the same after a resume
            torch.manual_seed(torch_seed(config.run.seed, Stream.DROPOUT, clips.first))
            choice = self._mask_noise(clips)  # of the draw inside the step
        else:
            choice = self.visible(clips, masks)
        losses = self._losses(clips, choice)
        loss = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad()
        spread(loss).backward()
        norm = self.optimizer.step(learning_rate(config.train.schedule, self.step))
        metrics = {"loss": loss.detach(), "gradient_norm": norm}
        if len(losses) > 1:
            metrics |= {f"loss/{name}": term.detach() for name, term in losses.items()}
        self._metrics.add(metrics, clips.stream_indices)
        self.step += 1

    def visible(self, clips: Clips, masks: Masks | None) -> Tensor:
        """Visible tokens of all clips, int64 [b, k]: what was rolled out, and for the other clips
        what the system's masker draws."""
        if masks is None:
            return self._fill_visible(clips, None)
        rolled_out = torch.from_numpy(masks.rollout_visible).to(self.device)
        if len(rolled_out) == len(clips):
            return rolled_out
        others = clips.rows(len(rolled_out), len(clips))
        return torch.cat([rolled_out, self._fill_visible(others, masks.sampler)])

    def weights(self) -> State:
        return model_state(self.mae)

    def reports(self, ranks: Ranks = ALONE) -> list[StepReport]:
        return self._metrics.read(self.step, ranks)

    def state(self) -> TrainerState:
        files = {"mae": model_state(self.mae), "mae_optimizer": self.optimizer.state(self.parts)}
        weights = model_state(self.parts)
        if others := {k: value for k, value in weights.items() if not k.startswith(_MAE)}:
            files["auxiliary"] = others
        return TrainerState(self.step, files)

    def load(self, state: TrainerState) -> None:
        weights = {f"{_MAE}{name}": value for name, value in state.files["mae"].items()}
        load_model_state(self.parts, weights | state.files.get("auxiliary", {}))
        self.optimizer.load(self.parts, state.files["mae_optimizer"])
        self.step = state.step

    def _losses(self, clips: Clips, choice: Tensor) -> dict[str, Tensor]:
        """Weighted loss terms of the clips, scalars on the device."""
        self.model.train()
        pixels = self.inputs.pixels(clips, self.device)
        with autocast(self.config.train.precision, self.device):
            return self.model(
                pixels,
                choice,
                self.inputs.target_noise(clips.first, len(clips), self.device),
                self.inputs.motion(clips, self.device),
                None if self._encoder is None else self._encoder(pixels),
            )

    def _fill_visible(self, clips: Clips, sampler: Sampler | None) -> Tensor:
        """Visible tokens of clips that were not rolled out, int64 [b, k]; at random where the
        system learns by rollouts and has no policy yet."""
        config, noise = self.config, self._mask_noise(clips)
        if config.learns_by_rollouts and sampler is None:
            return draw_evenly(noise, config.visible)
        system, view = config.masking_system, None
        if system.reads == "tokens":
            view = self._patch_tokens(clips)
        elif system.reads != "nothing":
            view = self.inputs.motion(clips, self.device)
        return select_visible(system, noise, view, sampler)

    @torch.no_grad()
    def _patch_tokens(self, clips: Clips) -> Tensor:
        """What a sampler sees of clips, [b, N, d]."""
        patches = self.mae.patches(self.inputs.pixels(clips, self.device))
        with autocast(self.config.train.precision, self.device):
            return self.mae.patch_embedding(patches)

    def _mask_noise(self, clips: Clips) -> Tensor:
        return self.inputs.mask_noise(clips.first, len(clips), self.device)
