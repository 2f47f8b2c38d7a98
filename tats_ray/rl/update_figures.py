"""Figures of a PPO update, and the end of a run whose update is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tats_ray.models.nonfinite import ALONE, Fault, Ranks, locate, spread
from tats_ray.models.optimizer import GuardedOptimizer
from tats_ray.rl.ppo import PPOLoss


@dataclass(frozen=True)
class UpdateSummary:
    """Figures by name, and what was left out of the update."""

    figures: dict[str, float]
    skipped: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class UpdatePlace:
    """Which update this is: 0-based step of the run, and this rank's clips, int64 [b]."""

    step: int
    clips: np.ndarray
    ranks: Ranks = ALONE


class UpdateFigures:
    """Collects what the minibatches of one update show; it stays on the device until it is read."""

    def __init__(self, guard: GuardedOptimizer) -> None:
        self._guard = guard
        self._losses: list[PPOLoss] = []
        self._norms: list[Tensor] = []
        self._own_faults: list[Tensor] = []

    def add_loss(self, loss: PPOLoss) -> Tensor:
        """Takes the loss of the next minibatch; returns what to differentiate."""
        self._losses.append(PPOLoss(*(part.detach() for part in loss)))
        return spread(loss.total)

    def step(self, lr: float) -> None:
        """Steps the guarded optimiser on the gradient of that minibatch."""
        self._norms.append(self._guard.step(lr))
        self._own_faults.append(self._guard.own_fault)

    def read(self, place: UpdatePlace) -> UpdateSummary:
        """Means over the minibatches (largest ratio: maximum) since the last call, read from the
        device at once; all ranks call it after the same minibatch.

        Raises:
            NonFiniteError: more than `train.skip_nonfinite` gradients of the run were not finite;
                from the one too many on, the sampler has not changed.
        """
        table = torch.stack([torch.stack(list(loss)) for loss in self._losses])
        own = torch.stack(self._own_faults).amax()
        norms = torch.stack(self._norms)
        head = torch.cat([table.mean(dim=0), table[:, -1].amax()[None]])
        values = torch.cat([head, norms]).tolist()
        self._losses, self._norms, self._own_faults = [], [], []
        good = [math.isfinite(norm) for norm in values[len(head) :]]
        figures = _named(values[: len(head)])
        skipped = []
        if not all(good):
            skipped = [self._skip(good.count(False), figures, place, own)]
            rest = table[good]
            mean = torch.cat([rest.mean(dim=0), rest[:, -1].amax()[None]]) if len(rest) else None
            figures = {} if mean is None else _named(mean.tolist())
        if self._guard.skip_limit:
            figures["ppo/skipped_updates"] = float(self._guard.skipped)
        return UpdateSummary(figures, skipped)

    def _skip(
        self, count: int, figures: dict[str, float], place: UpdatePlace, own: Tensor
    ) -> Fault:
        """Counts minibatches that were left out; ends the run where they are too many."""
        learners, clips = locate(place.ranks, own, place.clips)
        where = f", PPO learner {', '.join(map(str, learners))}" if place.ranks.size > 1 else ""
        what = (
            f"step {place.step + 1}{where}: PPO's gradient or loss is not finite (policy loss "
            f"{figures['ppo/policy']:.3g}, value loss {figures['ppo/value']:.3g}, largest ratio "
            f"{figures['ppo/ratio_max']:.3g})"
        )
        remedy = (
            "lower rl.lr or rl.log_ratio_limit, or let train.skip_nonfinite such updates be left "
            "out"
        )
        return self._guard.skip(Fault(what, clips), count, remedy)


def _named(values: list[float]) -> dict[str, float]:
    """Means in the order of `PPOLoss`, then the largest ratio."""
    figures = dict(zip(PPOLoss._fields, values[:-1], strict=True)) | {"ratio_max": values[-1]}
    return {f"ppo/{name}": value for name, value in figures.items()}
