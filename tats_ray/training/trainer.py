"""What every executor asks of a model in training, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from tats_ray.data.clips import Clips
from tats_ray.models.nonfinite import ALONE, Fault, Ranks
from tats_ray.models.sampler import Sampler
from tats_ray.models.state import State

Wrap = Callable[[nn.Module], nn.Module]  # makes a model data-parallel


def unwrapped(model: nn.Module) -> nn.Module:
    """The model of a process that trains alone."""
    return model


@dataclass(frozen=True)
class Masks:
    """Which tokens of a batch stay visible, as far as rollouts decided.

    Attributes:
        rollout_visible: int64 [a, k], of the first a clips, which were rolled out.
        sampler: the policy that draws for the other clips; None draws at random.
    """

    rollout_visible: np.ndarray
    sampler: Sampler | None


@dataclass(frozen=True)
class StepReport:
    """Metrics of a finished step; `step` counts finished steps, from 1.

    Attributes:
        skipped: what was left out of the step because it was not finite.
    """

    step: int
    metrics: dict[str, float]
    skipped: list[Fault] = field(default_factory=list)


class TrainerState(Protocol):
    """Weights and optimiser of a trainer, as they travel and are stored."""

    @property
    def step(self) -> int:
        """Finished steps."""
        ...

    def files(self) -> dict[str, State]:
        """Tensors by the name of their safetensors file."""
        ...

    def documents(self) -> dict[str, Any]:
        """Plain values by the name of their JSON file."""
        ...


class Trainer(Protocol):
    """Model, optimiser and step of one rank; `step` counts finished steps."""

    step: int

    def train_step(self, clips: Clips, masks: Masks | None = None) -> None:
        """One optimiser step on this rank's clips; its metrics stay on the device."""
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

    def state(self) -> Any:
        """Copy of weights and optimiser, a `TrainerState`."""
        ...

    def load(self, state: Any) -> None:
        """Continues from what `state` gave."""
        ...


class BuildTrainer(Protocol):
    """Makes a trainer in whatever process it trains in; crosses to other processes."""

    def __call__(self, *, device: torch.device, wrap: Wrap = unwrapped) -> Trainer: ...
