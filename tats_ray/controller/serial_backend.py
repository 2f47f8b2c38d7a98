"""Serial mode: the whole run in one process, without Ray. For debugging, for exact tests, and for a
bare GPU machine."""

from __future__ import annotations

import time

import torch

from tats_ray.config import Config
from tats_ray.controller.executor import Finished
from tats_ray.data.clips import ClipBatch, Clips, Cursor
from tats_ray.data.serial_stream import SerialClipStream, read_local
from tats_ray.data.stage import BlockPlan, Quarantine
from tats_ray.models.precision import default_device
from tats_ray.rl.rollout import Rollout
from tats_ray.rl.serial_learner import SerialActorLearner
from tats_ray.training.checkpoint import TrainingState
from tats_ray.training.trainer import MAETrainer
from tats_ray.training.work import StepReport


class SerialBackend:
    """Every round is complete when `run_round` returns."""

    def __init__(self, config: Config, plan: BlockPlan, quarantined: dict[str, str]) -> None:
        self.config = config
        self._plan = plan
        self._quarantine = Quarantine(quarantined)
        self._done: Finished[TrainingState] = Finished()

    def start(self, state: TrainingState | None, cursor: Cursor, first_step: int) -> None:
        torch.set_num_threads(self.config.cluster.threads)
        device = default_device()
        self._trainer = MAETrainer(self.config, device)
        self._learner: SerialActorLearner | None = None
        if self.config.masking.learned:
            self._learner = SerialActorLearner(self.config, device, self._trainer.mae)
        if state is not None:
            self._trainer.load(state.train)
            if self._learner is not None and state.policy is not None:
                self._learner.load(state.policy)
        self._stream = SerialClipStream(self._plan, cursor, self._quarantine)

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        return self._stream.next_batch(first, clips)

    def run_round(self, step: int, batch: ClipBatch, *, snapshot: bool) -> None:
        clips = read_local(batch)
        figures: dict[str, float] = {}
        known = torch.empty((0, self.config.visible), dtype=torch.int64)
        sampler = None
        if self._learner is not None and step >= self.config.masking.warmup_steps:
            rollout, figures = self._roll_out(clips, step)
            known = torch.from_numpy(rollout.visible[:, 0])
            sampler = self._learner.sampler
        self._trainer.train_step(clips, self._trainer.complete(clips, known, sampler))
        left_out = [] if self._learner is None else self._learner.skipped
        for report in self._trainer.reports():
            skipped = report.skipped + left_out
            self._done.reports.append(StepReport(report.step, report.figures | figures, skipped))
        if snapshot:
            self._done.states.append(self._state())

    def finished(self) -> Finished[TrainingState]:
        done, self._done = self._done, Finished()
        return done

    def finish(self, step: int) -> Finished[TrainingState]:
        assert self._trainer.step == step, f"{self._trainer.step} steps are done, not {step}"
        if all(state.train.step != step for state in self._done.states):
            self._done.states.append(self._state())
        return self.finished()

    def quarantined(self) -> dict[str, str]:
        return dict(self._quarantine.known())

    def is_lost(self) -> bool:
        return False

    def close(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.close()

    def _roll_out(self, clips: Clips, step: int) -> tuple[Rollout, dict[str, float]]:
        assert self._learner is not None
        started = time.monotonic()
        rollout, figures = self._learner.run_round(clips.rows(0, self.config.rollout_clips), step)
        return rollout, figures | {"rollout/seconds": time.monotonic() - started}

    def _state(self) -> TrainingState:
        policy = None if self._learner is None else self._learner.state()
        return TrainingState(self._trainer.state(), policy)
