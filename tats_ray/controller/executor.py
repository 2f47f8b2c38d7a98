"""Where a task runs: in this process, or on Ray. Both run the same step functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from tats_ray.config import Config
from tats_ray.config.job import JobConfig
from tats_ray.data.clips import ClipBatch
from tats_ray.data.stage import BlockPlan
from tats_ray.rl.rollout import Rollout
from tats_ray.training.checkpoint import Progress, RunState
from tats_ray.training.reports import StepReport
from tats_ray.training.trainer import BuildTrainer


class ExecutorLostError(Exception):
    """The hub of a run on Ray died; another executor may continue from the newest checkpoint."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        plan: the stream of clips.
        build_model: makes the model alone, freshly initialised.
        build_trainer: makes the model, its optimiser and its step in any process.
        read_state: the state in a checkpoint folder.
        rollouts: config of the policy that rollouts train beside the model; None where there is
            none.
        facts: what the task adds to the run's summary.
    """

    config: JobConfig
    plan: BlockPlan
    build_model: Callable[[], nn.Module]
    build_trainer: BuildTrainer
    read_state: Callable[[Path], RunState]
    rollouts: Config | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def draws(self, step: int) -> bool:
        """Whether a policy draws masks at a step: it does once its warm-up is over."""
        return self.rollouts is not None and step >= self.rollouts.sampler_warmup_steps


@dataclass(frozen=True)
class StartingPoint:
    """Where an executor begins.

    Attributes:
        state: None for a run from scratch.
        quarantined: path -> reason of videos that are known to be broken.
        storage: directory of the run for what executors keep on disk.
    """

    progress: Progress
    state: RunState | None
    quarantined: dict[str, str]
    storage: Path


@dataclass
class Completed:
    """Steps that are done, in order, and the states that were asked for; a state comes no later
    than its step's report."""

    reports: list[StepReport] = field(default_factory=list)
    states: list[RunState] = field(default_factory=list)


class Executor(Protocol):
    """Runs iterations; `step` is 0-based."""

    def next_batch(self, step: int) -> ClipBatch:
        """The global batch of a step, by reference; may wait for decoding."""
        ...

    def roll_out(self, step: int, batch: ClipBatch) -> Rollout | None:
        """Token sets of the batch's first clips, drawn and scored by rollout workers; None where
        the step has none."""
        ...

    def update_policy(self, step: int, batch: ClipBatch, rollout: Rollout | None) -> None:
        """Updates the sampler on rollouts, if there are some."""
        ...

    def train(
        self, step: int, batch: ClipBatch, rollout: Rollout | None, *, snapshot: bool
    ) -> None:
        """Submits the model's optimiser step, which may finish later; with `snapshot` the state
        after it is wanted."""
        ...

    def learn_from_training(self, step: int, batch: ClipBatch) -> None:
        """Updates the sampler on what training steps drew and scored themselves, if they did: on
        all of it, up to the last `rl.staleness` steps."""
        ...

    def keep_state(self, step: int) -> None:
        """Keeps the policy's part of the state after `step` finished steps, which `completed`
        returns."""
        ...

    def completed(self) -> Completed:
        """What was completed since the last call; does not wait."""
        ...

    def finish(self, step: int) -> Completed:
        """Ends after `step` steps: waits for them and returns the rest, the last state included."""
        ...

    def quarantined(self) -> Mapping[str, str]:
        """Path -> reason of broken videos so far."""
        ...
