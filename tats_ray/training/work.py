"""What passes between the driver and the Train workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tats_ray.data.clips import ClipBatch
from tats_ray.errors import TatsRayError
from tats_ray.models.nonfinite import Fault
from tats_ray.models.state import State
from tats_ray.rl.versions import VersionedWeights


class NumberedItem(Protocol):
    """What the hub keeps of a step until a snapshot has passed it."""

    @property
    def step(self) -> int:
        """0-based number of the step."""
        ...

    @property
    def snapshot(self) -> bool:
        """Whether the full training state is wanted after this step."""
        ...


@dataclass(frozen=True)
class BatchItem:
    """One numbered step on a global batch, by reference."""

    step: int
    batch: ClipBatch
    snapshot: bool


@dataclass(frozen=True)
class WorkItem:
    """One numbered step of the autoencoder.

    The first `len(visible)` clips were rolled out and bring their visible tokens; for the rest the
    Train worker asks the masker itself.

    Attributes:
        step: 0-based number of the step.
        batch: the global batch by reference.
        visible: int64 [b, k], b <= len(batch), of the rolled-out clips.
        policy: sampler for the clips without visible tokens; None for fixed maskers and warm-up.
        snapshot: whether the full training state is wanted after this step.
    """

    step: int
    batch: ClipBatch
    visible: np.ndarray
    policy: VersionedWeights | None
    snapshot: bool


@dataclass(frozen=True)
class TrainState:
    """Autoencoder, what trains in its step, and their optimiser after `step` steps."""

    step: int
    mae: State
    heads: State  # joint sampler and further decoders; empty for most systems
    optimizer: State


@dataclass(frozen=True)
class StepReport:
    """Figures of a finished step; `step` counts finished steps, from 1.

    Attributes:
        skipped: what was left out of the step because it was not finite.
    """

    step: int
    figures: dict[str, float]
    skipped: list[Fault] = field(default_factory=list)


@dataclass
class News:
    """What happened since the driver last asked."""

    reports: list[StepReport] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)  # what the Train workers' trainer gives
    failure: TatsRayError | None = None
