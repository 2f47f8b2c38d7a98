"""Serial mode: the whole run in one process, without Ray. For debugging, for exact tests, and for a
bare GPU machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch

from tats_ray.controller.executor import Completed, StartingPoint, Task
from tats_ray.data.clips import ClipBatch
from tats_ray.data.serial_stream import SerialClipStream, read_local
from tats_ray.data.stage import Quarantine
from tats_ray.models.numerics import Fault, default_device
from tats_ray.rl.learner import InProcessPolicy
from tats_ray.rl.rollout import Rollout
from tats_ray.training.checkpoint import RunState
from tats_ray.training.mae_trainer import MAETrainer
from tats_ray.training.policy import build_in_process_policy
from tats_ray.training.trainer import Masks, StepReport, Trainer


class ClipStream(Protocol):
    """Where batches come from; their blocks are in this process."""

    def next_batch(self, first: int, clips: int) -> ClipBatch: ...


class InProcessExecutor:
    """Every step is complete when `train` returns; `policy` is None where the task has no
    rollouts."""

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
        self._metrics: dict[str, float] = {}
        self._skipped: list[Fault] = []

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
        if self.policy is None or config is None or step < config.sampler_warmup_steps:
            return None
        started = time.monotonic()
        rollout = self.policy.roll_out(self._clips.rows(0, config.rollout_clips), step)
        self._metrics = rollout.error_metrics() | {"rollout/seconds": time.monotonic() - started}
        return rollout

    def update_policy(self, step: int, batch: ClipBatch, rollout: Rollout | None) -> None:
        if rollout is None or self.policy is None:
            return
        summary = self.policy.update(rollout, self._clips.rows(0, len(rollout)), step)
        self._metrics |= summary.metrics
        self._skipped = summary.skipped

    def train(
        self, step: int, batch: ClipBatch, rollout: Rollout | None, *, snapshot: bool
    ) -> None:
        masks = None
        if rollout is not None and self.policy is not None:
            masks = Masks(rollout.visible[:, 0], self.policy.sampler)
        self.trainer.train_step(self._clips, masks)
        for report in self.trainer.reports():
            metrics = report.metrics | self._metrics
            skipped = report.skipped + self._skipped
            self._done.reports.append(StepReport(report.step, metrics, skipped))
        self._metrics, self._skipped = {}, []
        if snapshot:
            self._done.states.append(self._state())

    def completed(self) -> Completed:
        done, self._done = self._done, Completed()
        return done

    def finish(self, step: int) -> Completed:
        assert self.trainer.step == step, f"{self.trainer.step} steps are done, not {step}"
        self._done.states.append(self._state())
        return self.completed()

    def quarantined(self) -> Mapping[str, str]:
        return self._quarantine.known()

    def _state(self) -> RunState:
        policy = None if self.policy is None else self.policy.state()
        return RunState(self.trainer.state(), policy)


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
