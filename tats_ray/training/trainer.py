"""The autoencoder being trained: model, optimiser and step, on one device of any mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.data.randomness import Stream, torch_seed
from tats_ray.masking.build import build_masker
from tats_ray.masking.random import RandomMasker
from tats_ray.models.features import FeatureEncoder
from tats_ray.models.inputs import clip_motion, mask_noise
from tats_ray.models.mae import build_mae
from tats_ray.models.nonfinite import ALONE, Ranks
from tats_ray.models.optimizer import GuardedOptimizer, build_adamw
from tats_ray.models.sampler import Sampler
from tats_ray.models.state import State, load_model_state, model_state
from tats_ray.rl.update import patch_tokens
from tats_ray.training.initial_weights import load_initial_weights
from tats_ray.training.mae_step import mae_step
from tats_ray.training.pretraining_model import build_pretraining_model
from tats_ray.training.step_figures import StepFigures
from tats_ray.training.work import StepReport, TrainState

_MAE = "mae."  # prefix of the autoencoder's weights in `PretrainingModel`


class MAETrainer:
    """One rank's share of the autoencoder's training.

    `step` counts finished steps. Figures stay on the device until `reports` reads them.
    """

    def __init__(
        self,
        config: Config,
        device: torch.device,
        wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
    ) -> None:
        """Args: wrap: makes the model data-parallel.

        Raises:
            FeatureEncoderError: the encoder of a feature target cannot be had.
            CheckpointError: `train.initial_weights` is not of this model.
        """
        self.config = config
        self.device = device
        target = config.model.feature_target
        self._encoder = (
            FeatureEncoder(target, config.grid, config.data.size, device)
            if target.encoder
            else None
        )
        self.mae = build_mae(config.model, config.grid, config.run.seed)
        width = None if self._encoder is None else self._encoder.width
        self.parts = build_pretraining_model(config, self.mae, width)
        if config.train.initial_weights is not None:
            load_initial_weights(self.parts, config.model, config.train.initial_weights)
        self.parts.to(device)
        self.model = wrap(self.parts)
        train = config.train
        adamw = build_adamw(
            self.parts, train.lr, train.weight_decay, (train.betas[0], train.betas[1])
        )
        self.optimizer = GuardedOptimizer(adamw, train.gradient_clip, train.skip_nonfinite)
        self.optimizer.watch(self.model)
        self.step = 0
        self._figures = StepFigures(train, self.optimizer, "autoencoder")

    def train_step(self, clips: Clips, visible: Tensor | None) -> None:
        """One optimiser step on this rank's clips and visible tokens.

        Args:
            visible: int64 [b, k]; None where the joint sampler draws them.
        """
        config = self.config
        if config.masking.joint:  # its dropout: the same after a resume
            torch.manual_seed(torch_seed(config.run.seed, Stream.DROPOUT, clips.first))
        figures = mae_step(
            config, self.model, self.optimizer, clips, visible, self.step, encoder=self._encoder
        )
        self._figures.add(figures, clips.positions)
        self.step += 1

    def complete(self, clips: Clips, known: Tensor, sampler: Sampler | None) -> Tensor | None:
        """Visible tokens of all clips, int64 [b, k], or None where the joint sampler draws them.

        Args:
            known: int64 [a, k], a <= b, of the first clips, which were rolled out.
            sampler: policy for the others; None draws at random (fixed maskers draw their own way).
        """
        if self.config.masking.joint:
            return None
        known = known.to(self.device)
        if len(known) == len(clips):
            return known
        rest = clips.rows(len(known), len(clips))
        return torch.cat([known, self.select(rest, sampler)])

    def select(self, clips: Clips, sampler: Sampler | None) -> Tensor:
        """Visible tokens of clips that were not rolled out, int64 [b, k]."""
        config = self.config
        noise = mask_noise(config, clips.first, len(clips), self.device)
        if config.masking.learned and sampler is None:
            return RandomMasker(config.visible).select(noise)
        masker = build_masker(config, sampler)
        view = None
        if masker.reads == "tokens":
            view = patch_tokens(config, self.mae.patch_embedding, clips, self.device)
        elif masker.reads == "motion":
            view = clip_motion(config, clips, self.device)
        return masker.select(noise, view)

    def reports(self, ranks: Ranks = ALONE) -> list[StepReport]:
        """Figures of the steps since the last call; arguments and errors as `StepFigures.read`."""
        return self._figures.read(self.step, ranks)

    def state(self) -> TrainState:
        """Copy of weights and optimiser."""
        moments = self.optimizer.state(self.parts)
        return TrainState(self.step, model_state(self.mae), self._heads(), moments)

    def load(self, state: TrainState) -> None:
        """Continues from a state."""
        weights = {f"{_MAE}{name}": value for name, value in state.mae.items()}
        load_model_state(self.parts, weights | state.heads)
        self.optimizer.load(self.parts, state.optimizer)
        self.step = state.step

    def _heads(self) -> State:
        """Weights of everything but the autoencoder."""
        return {
            name: value
            for name, value in model_state(self.parts).items()
            if not name.startswith(_MAE)
        }
