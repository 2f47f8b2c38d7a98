"""The autoencoder being trained: model, optimiser and step, on one device of any mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.errors import NonFiniteError
from tats_ray.masking.build import build_masker
from tats_ray.masking.random import RandomMasker
from tats_ray.models.inputs import mask_noise
from tats_ray.models.mae import build_mae
from tats_ray.models.optimizer import GuardedOptimizer, build_adamw, learning_rate
from tats_ray.models.sampler import TrajectorySampler
from tats_ray.models.state import (
    load_model_state,
    load_optimizer_state,
    model_state,
    optimizer_state,
)
from tats_ray.rl.update import patch_tokens
from tats_ray.training.mae_step import MAEStep, mae_step
from tats_ray.training.work import StepReport, TrainState


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
        """Args: wrap: makes the model data-parallel."""
        self.config = config
        self.device = device
        self.mae = build_mae(config.model, config.grid, config.run.seed).to(device)
        self.model = wrap(self.mae)
        train = config.train
        adamw = build_adamw(
            self.mae, train.lr, train.weight_decay, (train.betas[0], train.betas[1])
        )
        self.optimizer = GuardedOptimizer(adamw, train.gradient_clip)
        self.step = 0
        self._unread: list[MAEStep] = []

    def train_step(self, clips: Clips, visible: Tensor) -> None:
        """One optimiser step on this rank's clips and visible tokens, int64 [b, k]."""
        result = mae_step(self.config, self.model, self.optimizer, clips, visible, self.step)
        self._unread.append(result)
        self.step += 1

    def select(self, clips: Clips, sampler: TrajectorySampler | None) -> Tensor:
        """Visible tokens of clips that were not rolled out, int64 [b, k].

        Args:
            sampler: the learned policy; None draws at random (fixed maskers draw their own way).
        """
        config = self.config
        noise = mask_noise(config, clips.first, len(clips), self.device)
        if config.masking.learned and sampler is None:
            return RandomMasker(config.visible).select(noise)
        masker = build_masker(config, sampler)
        tokens = None
        if masker.needs_tokens:
            tokens = patch_tokens(config, self.mae.patch_embedding, clips, self.device)
        return masker.select(noise, tokens)

    def reports(self, reduce: Callable[[Tensor], Tensor] = lambda table: table) -> list[StepReport]:
        """Figures of the steps since the last call, read from the device at once.

        Args:
            reduce: averages over the ranks.

        Raises:
            NonFiniteError: names the first step whose gradient was not finite; the weights are as
                they were before it.
        """
        if not self._unread:
            return []
        table = reduce(torch.stack([torch.stack(list(result)) for result in self._unread]))
        rows = torch.cat([table.flatten(), self.optimizer.poisoned[None]]).tolist()
        first = self.step - len(self._unread)
        reports = []
        for offset in range(len(self._unread)):
            loss, norm = rows[2 * offset : 2 * offset + 2]
            if rows[-1] and not torch.isfinite(torch.tensor(norm)):
                raise NonFiniteError(
                    f"step {first + offset + 1}: the autoencoder's gradient is not finite (loss "
                    f"{loss:.4g}); no update was applied; lower train.base_lr or set "
                    "train.gradient_clip"
                )
            figures = {
                "loss": loss,
                "gradient_norm": norm,
                "lr": learning_rate(self.config.train, first + offset),
            }
            reports.append(StepReport(first + offset + 1, figures))
        self._unread = []
        return reports

    def state(self) -> TrainState:
        """Copy of weights and optimiser."""
        moments = optimizer_state(self.mae, self.optimizer.optimizer)
        return TrainState(self.step, model_state(self.mae), moments)

    def load(self, state: TrainState) -> None:
        """Continues from a state."""
        load_model_state(self.mae, state.mae)
        load_optimizer_state(self.mae, self.optimizer.optimizer, state.optimizer)
        self.step = state.step
