"""What the driver asks of an execution mode; serial and Ray mode run the same step functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.training.checkpoint import Storable
from tats_ray.training.work import StepReport

StateT = TypeVar("StateT", bound=Storable)


@dataclass
class Finished(Generic[StateT]):
    """Steps that are done, in order, and the states that were asked for; a state comes no later
    than its step's report."""

    reports: list[StepReport] = field(default_factory=list)
    states: list[StateT] = field(default_factory=list)


class Backend(Protocol[StateT]):
    """Runs rounds: for pre-training rollouts and PPO for step i, then the model's step i."""

    def start(self, state: StateT | None, cursor: Cursor, first_step: int) -> None:
        """Brings everything up, from a checkpoint's state or from scratch."""
        ...

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        """The next global batch, by reference."""
        ...

    def run_round(self, step: int, batch: ClipBatch, *, snapshot: bool) -> None:
        """Hands in step `step` (0-based). It may finish later.

        Args:
            snapshot: whether the training state after this step is wanted.
        """
        ...

    def finished(self) -> Finished[StateT]:
        """What has finished since the last call; does not wait."""
        ...

    def finish(self, step: int) -> Finished[StateT]:
        """Ends after `step` steps: waits for them and returns the rest, final state included."""
        ...

    def quarantined(self) -> dict[str, str]:
        """Path -> reason of broken videos so far."""
        ...

    def is_lost(self) -> bool:
        """Whether the part died that holds the others together; another backend may continue from
        the newest checkpoint."""
        ...

    def close(self) -> None:
        """Ends everything that `start` brought up; safe at any time."""
        ...
