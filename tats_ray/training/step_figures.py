"""Figures of training steps, which stay on the device until they are read."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tats_ray.config.train import TrainSection
from tats_ray.errors import NonFiniteError
from tats_ray.models.optimizer import GuardedOptimizer, learning_rate
from tats_ray.training.work import StepReport


class StepFigures:
    """Collects scalars per step; reading them is the only synchronisation with the device."""

    def __init__(self, section: TrainSection, optimizer: GuardedOptimizer, what: str) -> None:
        """Args: what: the model, for the message of a failure."""
        self._section = section
        self._optimizer = optimizer
        self._what = what
        self._unread: list[dict[str, Tensor]] = []

    def add(self, figures: dict[str, Tensor]) -> None:
        """Takes the figures of the next step: the same names, `loss` and `gradient_norm` among
        them, at every step."""
        self._unread.append(figures)

    def read(self, step: int, reduce: Callable[[Tensor], Tensor]) -> list[StepReport]:
        """Reports of the steps since the last call.

        Args:
            step: finished steps.
            reduce: averages over the ranks.

        Raises:
            NonFiniteError: names the first step whose gradient was not finite; the weights are as
                they were before it.
        """
        if not self._unread:
            return []
        names = list(self._unread[0])
        table = reduce(torch.stack([torch.stack(list(row.values())) for row in self._unread]))
        *values, poisoned = torch.cat([table.flatten(), self._optimizer.poisoned[None]]).tolist()
        first, width = step - len(self._unread), len(names)
        self._unread = []
        reports = []
        for offset in range(len(table)):
            row = values[offset * width : (offset + 1) * width]
            figures = dict(zip(names, row, strict=True))
            if poisoned and not math.isfinite(figures["gradient_norm"]):
                raise NonFiniteError(
                    f"step {first + offset + 1}: the {self._what}'s gradient is not finite (loss "
                    f"{figures['loss']:.4g}); no update was applied; lower train.base_lr or set "
                    "train.gradient_clip"
                )
            figures["lr"] = learning_rate(self._section, first + offset)
            reports.append(StepReport(first + offset + 1, figures))
        return reports
