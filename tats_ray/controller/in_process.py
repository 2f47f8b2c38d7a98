"""Serial mode: the whole run in one process, without Ray. For debugging, for exact tests, and for a
bare GPU machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tats_ray.controller.executor import Completed, StartingPoint, Task
from tats_ray.data.clips import ClipBatch
from tats_ray.data.serial_stream import SerialClipStream, read_local
from tats_ray.data.stage import Quarantine
from tats_ray.models.numerics import default_device
from tats_ray.rl.learner import InProcessPolicy, PolicyUpdate
from tats_ray.rl.rollout import Rollout, error_metrics
from tats_ray.rl.update import UpdateSummary
from tats_ray.training.checkpoint import RunState
from tats_ray.training.mae_trainer import MAETrainer
from tats_ray.training.policy import build_in_process_policy
from tats_ray.training.reports import StepReport
from tats_ray.training.trainer import Masks, Trainer


class ClipStream(Protocol):
    """Where batches come from; their blocks are in this process."""

    def next_batch(self, first: int, clips: int) -> ClipBatch: ...


@dataclass
class _Learned:
    """What the policy did in a step; numbers are read with the step's report.

    Attributes:
        seconds, error: of rollouts; None where there were none.
    """

    seconds: float = 0.0
    error: Tensor | None = None
    update: PolicyUpdate | None = None


class InProcessExecutor:
    """Steps are reported at logging intervals and where a state is kept, so that the device need
    not be waited for at each; `policy` is None where the task has no rollouts."""

    def __init__(
        self,
        task: Task,
        stream: ClipStream,
        quarantine: Quarantine,
        device: torch.device | None = None,
    ) -> None:
        device = device or default_device()
        self.trainer: Trainer = task.build_trainer(device=device)
        self.policy: InProcessPolicy | None = None
        if task.rollouts is not None:
            assert isinstance(self.trainer, MAETrainer), "rollouts are scored by an autoencoder"
            self.policy = build_in_process_policy(task.rollouts, device, self.trainer.mae)
        self._task = task
        self._stream = stream
        self._quarantine = quarantine
        self._done = Completed()
        self._scored: Rollout | None = None  # by the newest training step
        self._learned: dict[int, _Learned] = {}  # by finished steps, until it is read

    def load(self, state: RunState) -> None:
        """Continues from a state."""
        self.trainer.load(state.trainer)
        if self.policy is not None and state.policy is not None:
            self.policy.load(state.policy)

    def next_batch(self, step: int) -> ClipBatch:
        size = self._task.config.train.batch_size
        batch = self._stream.next_batch(step * size, size)
        self._clips = read_local(batch)
        return batch

    def roll_out(self, step: int, batch: ClipBatch) -> Rollout | None:
        config = self._task.rollouts
        if self.policy is None or config is None or not self._task.draws(step):
            return None
        if config.trained_on_own_errors:
            return None
        started = time.monotonic()
        rollout = self.policy.roll_out(self._clips.rows(0, config.rollout_clips), step)
        learned = _Learned(time.monotonic() - started, rollout.error.mean())
        self._learned[step + 1] = learned
        return rollout

    def update_policy(self, step: int, batch: ClipBatch, rollout: Rollout | None) -> None:
        self._update(step, rollout)

    def train(
        self, step: int, batch: ClipBatch, rollout: Rollout | None, *, snapshot: bool
    ) -> None:
        masks, policy = None, self.policy
        if policy is not None and self._task.draws(step):
            visible = None if rollout is None else rollout.visible[:, 0]
            masks = Masks(visible, policy.sampler, policy.version)
        self._scored = self.trainer.train_step(self._clips, masks)

    def learn_from_training(self, step: int, batch: ClipBatch) -> None:
        self._update(step, self._scored)
        self._scored = None
        if (step + 1) % self._task.config.tracking.log_interval == 0:
            self._read()

    def keep_state(self, step: int) -> None:
        self._read()  # raises: no state is kept behind a bad step
        policy = None if self.policy is None else self.policy.state()
        self._done.states.append(RunState(self.trainer.state(), policy))

    def completed(self) -> Completed:
        done, self._done = self._done, Completed()
        return done

    def finish(self, step: int) -> Completed:
        assert self.trainer.step == step, f"{self.trainer.step} steps are done, not {step}"
        self.keep_state(step)
        return self.completed()

    def quarantined(self) -> Mapping[str, str]:
        return self._quarantine.known()

    def _update(self, step: int, rollout: Rollout | None) -> None:
        if rollout is None or self.policy is None:
            return
        learned = self._learned.setdefault(step + 1, _Learned())
        learned.update = self.policy.update(rollout, self._clips.rows(0, len(rollout)), step)

    def _read(self) -> None:
        """Reports of the steps since the last call: reading metrics waits for the device."""
        learned, self._learned = self._learned, {}
        # Before the steps that used these policies: the first fault is the one to name.
        updates = {step: self._read_update(done) for step, done in learned.items()}
        for report in self.trainer.reports():
            summary = updates.get(report.step, UpdateSummary({}))
            metrics = report.metrics | summary.metrics
            skipped = report.skipped + summary.skipped
            self._done.reports.append(StepReport(report.step, metrics, skipped))

    def _read_update(self, learned: _Learned) -> UpdateSummary:
        """What the policy did in a step, with the metrics of its rollouts."""
        metrics: dict[str, float] = {}
        if learned.error is not None:
            metrics = error_metrics(learned.error) | {"rollout/seconds": learned.seconds}
        if learned.update is None or self.policy is None:
            return UpdateSummary(metrics)
        summary = self.policy.learner.read(learned.update)
        return UpdateSummary(metrics | summary.metrics, summary.skipped)


@contextmanager
def in_process(task: Task, start: StartingPoint) -> Iterator[InProcessExecutor]:
    """An executor in this process over the task's own clips; its decoder ends with the block."""
    torch.set_num_threads(task.config.cluster.threads)
    quarantine = Quarantine(start.quarantined)
    stream = SerialClipStream(task.plan, start.progress.cursor, quarantine)
    try:
        executor = InProcessExecutor(task, stream, quarantine)
        if start.state is not None:
            executor.load(start.state)
        yield executor
    finally:
        stream.close()
