"""What every executor asks of a model in training, what it gets back, and the metrics of its steps,
which stay on the device until they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tats_ray.config.train import TrainSettings
from tats_ray.data.clips import Clips
from tats_ray.errors import Fault
from tats_ray.models.numerics import ALONE, Ranks, locate
from tats_ray.models.optimizer import GuardedOptimizer, learning_rate
from tats_ray.models.samplers import Sampler
from tats_ray.models.state import State
from tats_ray.models.transformer import set_recompute
from tats_ray.rl.rollout import Rollout
from tats_ray.training.reports import StepReport, TrainerState

Wrap = Callable[[nn.Module], nn.Module]  # makes a model data-parallel


def prepared(
    model: nn.Module, settings: TrainSettings, device: torch.device, wrap: Wrap
) -> nn.Module:
    """The model as steps call it, with its weights on the device; those of `model` are the same."""
    set_recompute(model, settings.recompute)
    model.to(device)
    return wrap(cast(nn.Module, torch.compile(model)) if settings.compile else model)


def in_parts(model: nn.Module, clips: Clips, count: int) -> Iterator[tuple[int, Clips]]:
    """Cuts a worker's clips into equal parts, for one forward and backward pass each inside the
    loop; data-parallel workers exchange the sum of their gradients in the last one.

    Yields the row of a part's first clip, and the part.
    """
    size = len(clips) // count
    for start in range(0, len(clips), size):
        exchange: AbstractContextManager[None] = nullcontext()
        if isinstance(model, DistributedDataParallel) and start + size < len(clips):
            exchange = model.no_sync()
        with exchange:
            yield start, clips.rows(start, start + size)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model of a process that trains alone."""
    return model


@dataclass(frozen=True)
class Masks:
    """What decides which tokens of a batch stay visible where rollouts train a sampler.

    Attributes:
        rollout_visible: int64 [a, k], of the first a clips, which were rolled out; None: of none.
        sampler: the policy that draws for the other clips; None where there are no others.
        policy_version: of the sampler.
    """

    rollout_visible: Tensor | None
    sampler: Sampler | None
    policy_version: int

    def rows(self, start: int, stop: int) -> Masks:
        """For a contiguous part of the clips."""
        rolled_out = None if self.rollout_visible is None else self.rollout_visible[start:stop]
        return replace(self, rollout_visible=rolled_out)


class Trainer(Protocol):
    """Model, optimiser and step of one rank; `step` counts finished steps."""

    step: int

    def train_step(self, clips: Clips, masks: Masks | None = None) -> Rollout | None:
        """One optimiser step on this rank's clips; its metrics stay on the device. Returns what the
        policy learns from where the step's own errors are its reward."""
        ...

    def weights(self) -> State:
        """What other processes read of the model while it trains."""
        ...

    def reports(self, ranks: Ranks = ALONE) -> list[StepReport]:
        """Metrics of the steps since the last call, in order; all ranks call it together.

        Raises:
            NonFiniteError: names the first step behind `train.skip_nonfinite` whose gradient was
                not finite; the weights are as they were before it.
        """
        ...

    def state(self) -> TrainerState:
        """Copy of weights and optimiser."""
        ...

    def load(self, state: TrainerState) -> None:
        """Continues from what `state` gave."""
        ...


class BuildTrainer(Protocol):
    """Makes a trainer in whatever process it trains in; crosses to other processes."""

    def __call__(self, *, device: torch.device, wrap: Wrap = unwrapped) -> Trainer: ...


@dataclass(frozen=True)
class _Step:
    metrics: dict[str, Tensor]
    own_fault: Tensor
    clips: np.ndarray


class StepMetrics:
    """Collects scalars per step; reading them is the only synchronisation with the device."""

    def __init__(self, settings: TrainSettings, optimizer: GuardedOptimizer, what: str) -> None:
        """Args: what: the model, for the message of a failure."""
        self._settings = settings
        self._optimizer = optimizer
        self._what = what
        self._unread: list[_Step] = []

    def add(self, metrics: dict[str, Tensor], clips: np.ndarray) -> None:
        """Takes the metrics of the step that the optimiser has just taken.

        Args:
            metrics: the same names, `loss` and `gradient_norm` among them, at every step.
            clips: int64 [b], places of this rank's clips in the stream.
        """
        self._unread.append(_Step(metrics, self._optimizer.own_fault, clips))

    def read(self, step: int, ranks: Ranks) -> list[StepReport]:
        """As `Trainer.reports`, after `step` finished steps."""
        if not self._unread:
            return []
        unread, self._unread = self._unread, []
        names = list(unread[0].metrics)
        table = torch.stack([torch.stack(list(taken.metrics.values())) for taken in unread])
        reports = []
        rows = ranks.mean(table).tolist()
        first = step - len(rows)
        for number, (taken, row) in enumerate(zip(unread, rows, strict=True), first):
            metrics = dict(zip(names, row, strict=True))
            skipped = []
            if not math.isfinite(metrics["gradient_norm"]):
                skipped = [self._skip(number + 1, taken, metrics["loss"], ranks)]
                metrics = {}
            metrics["lr"] = learning_rate(self._settings.schedule, number)
            if self._settings.skip_nonfinite:
                metrics["skipped_steps"] = float(self._optimizer.skipped)
            reports.append(StepReport(number + 1, metrics, skipped))
        return reports

    def _skip(self, step: int, taken: _Step, loss: float, ranks: Ranks) -> Fault:
        """Counts a step that was left out; ends the run where that is one too many."""
        workers, clips = locate(ranks, taken.own_fault, taken.clips)
        where = f", Train worker {', '.join(map(str, workers))}" if ranks.size > 1 else ""
        what = f"step {step}{where}: the {self._what}'s gradient is not finite (loss {loss:.4g})"
        remedy = (
            "lower train.base_lr, set train.gradient_clip, or let train.skip_nonfinite such steps "
            "be left out"
        )
        return self._optimizer.skip(Fault(what, clips), 1, remedy)
