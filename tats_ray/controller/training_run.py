"""The driver's part of any training run: data in, rounds, records, checkpoints, summary."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic

from tats_ray.config.job import JobConfig
from tats_ray.controller.executor import Backend, Finished, StateT
from tats_ray.controller.mlflow_link import note_synchronised, open_mlflow
from tats_ray.controller.nonfinite import NonFiniteSteps
from tats_ray.controller.outputs import RunOutputs
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.controller.signals import StopRequest
from tats_ray.data.clips import Cursor
from tats_ray.data.stage import BlockPlan, check_share
from tats_ray.errors import ComponentFailedError, NonFiniteError, TatsRayError
from tats_ray.tracking.console import say
from tats_ray.tracking.metrics_file import MetricsFile
from tats_ray.tracking.tracker import Tracker
from tats_ray.training.checkpoint import Progress, checkpoints, read_progress


class _BackendLostError(Exception):
    """What a part of the run met when the hub was dead."""


class TrainingRun(ABC, Generic[StateT]):
    """One process's part of a run: from its last checkpoint to the end, or to a signal."""

    def __init__(
        self,
        config: JobConfig,
        directory: RunDirectory,
        plan: BlockPlan,
        outputs: RunOutputs[StateT],
        stop: StopRequest,
    ) -> None:
        self.config = config
        self.directory = directory
        self.plan = plan
        self.outputs = outputs
        self.stop = stop
        self._nonfinite = NonFiniteSteps(plan, directory)
        self._videos = len(plan.manifest["path"].unique())
        self._quarantined = len(directory.quarantine())
        self._first_step = 0
        self._data_seconds: dict[int, float] = {}
        self._reported_at = 0.0
        self._started_at = 0.0

    @abstractmethod
    def read_state(self, checkpoint: Path) -> StateT:
        """The state in a checkpoint folder."""

    @abstractmethod
    def build_backend(self) -> Backend[StateT]:
        """The backend of `cluster.mode`."""

    @abstractmethod
    def summarize(self, steps: int, tracker: Tracker, backend: Backend[StateT]) -> dict[str, Any]:
        """The run's result so far; at its end the content of summary.json."""

    def run(self) -> dict[str, Any]:
        """Trains; returns the summary. A lost backend is replaced by another one, which continues
        from the newest checkpoint.

        Raises:
            ComponentFailedError: backends were lost more than `train.max_failures` times.
        """
        self.stop.install()
        restarts, limit = 0, self.config.train.max_failures
        while True:
            try:
                return self._run_backend()
            except _BackendLostError as error:
                if restarts == limit:
                    raise ComponentFailedError(
                        f"the hub died after train.max_failures={limit} restarts: {error}"
                    ) from None
                restarts += 1
                say(f"the hub died; continuing from a checkpoint, restart {restarts} of {limit}")

    def _run_backend(self) -> dict[str, Any]:
        """Trains with one backend; returns the summary."""
        progress, state = self._restore()
        backend = self.build_backend()
        tracker = self._open_tracker(progress)
        status, summary = "FAILED", {}
        with self.stop.deferring():
            try:
                with self.stop.interrupting():
                    backend.start(state, progress.cursor, self._first_step)
                steps = self._train(backend, tracker)
                status = "KILLED"
                if steps < self.config.train.steps:
                    summary = self.summarize(steps, tracker, backend)
                else:
                    tracker.close_interval()
                    summary = self.summarize(steps, tracker, backend)
                    self.directory.write_summary(summary)
                    status = "FINISHED"
            except KeyboardInterrupt:
                status = "KILLED"
                raise
            except Exception as error:
                if backend.is_lost():
                    raise _BackendLostError(str(error)) from error
                raise
            finally:
                backend.close()
                note_synchronised(self.directory, tracker.close(status))
        # Known at the latest here, if ever.
        summary["mlflow_run_id"] = tracker.mlflow.run_id
        if status == "FINISHED":
            self.directory.write_summary(summary)
        return summary

    def _train(self, backend: Backend[StateT], tracker: Tracker) -> int:
        """All rounds; returns how many steps there are."""
        try:
            steps = self._rounds(backend, tracker)
            self._take(backend.finish(steps), tracker, last_step=steps)
            return steps
        except TatsRayError as error:
            # Steps that were done before the fault keep their records and checkpoints.
            with contextlib.suppress(TatsRayError):
                self._take(backend.finished(), tracker)
            if isinstance(error, NonFiniteError):
                raise self._nonfinite.named(error) from None
            raise

    def _restore(self) -> tuple[Progress, StateT | None]:
        """The newest checkpoint, or the beginning."""
        found = checkpoints(self.directory.checkpoints)
        progress = read_progress(found[-1]) if found else Progress(0, 0, Cursor(), 0)
        self._first_step = progress.step
        self.outputs.cursors[progress.step] = progress.cursor
        if not found:
            return progress, None
        say(f"continuing {self.directory.path} after step {progress.step}")
        return progress, self.read_state(found[-1])

    def _open_tracker(self, progress: Progress) -> Tracker:
        directory = self.directory
        metrics = MetricsFile(directory.metrics, progress.step)
        mlflow = open_mlflow(self.config, directory)
        return Tracker(self.config, metrics, mlflow, progress.interval)

    def _rounds(self, backend: Backend[StateT], tracker: Tracker) -> int:
        """Hands in every step until the end or a signal; returns how many steps there are."""
        batch_size = self.config.train.batch_size
        self._started_at = self._reported_at = time.monotonic()
        for step in range(self._first_step, self.config.train.steps):
            if self.stop.is_set:
                return self._stopped(step)
            started = time.monotonic()
            try:
                with self.stop.interrupting():  # clips may be long in coming
                    batch = backend.next_batch(step * batch_size, batch_size)
            except KeyboardInterrupt:
                if not self.stop.asked_once:
                    raise
                return self._stopped(step)
            self._data_seconds[step + 1] = time.monotonic() - started
            self._check_videos(backend.quarantined())
            self.outputs.cursors[step + 1] = batch.after
            backend.run_round(step, batch, snapshot=self.outputs.wants(step + 1))
            self._take(backend.finished(), tracker)
        return self.config.train.steps

    def _stopped(self, step: int) -> int:
        say(f"asked to stop: finishing step {step} and writing a checkpoint")
        return step

    def _check_videos(self, reasons: dict[str, str]) -> None:
        """Notes newly broken videos; too many of them end the run."""
        if len(reasons) > self._quarantined:
            self._quarantined = len(reasons)
            self.directory.write_quarantine(reasons)
            path, reason = next(reversed(reasons.items()))
            say(f"{len(reasons)} broken videos so far; the last: {path}: {reason}")
        check_share(reasons, self._videos, self.config.data.broken_share)

    def _take(
        self, finished: Finished[StateT], tracker: Tracker, last_step: int | None = None
    ) -> None:
        """Records finished steps, and uses the states that came with them."""
        states = {state.step: state for state in finished.states}
        now, count = time.monotonic(), len(finished.reports)
        for report in finished.reports:
            for fault in report.skipped:
                self._nonfinite.skipped(fault)
            figures = report.figures | {
                "time/step_seconds": (now - self._reported_at) / count,
                "time/data_seconds": self._data_seconds.pop(report.step),
            }
            state, last = states.pop(report.step, None), report.step == last_step
            if state is not None:
                # Whoever asks to stop does not wait for pictures and figures that are not due.
                shown = last and report.step == self.config.train.steps
                figures |= self.outputs.inspect(state, tracker, last=shown)
            tracker.step(report.step, figures)
            if state is not None:
                self.outputs.checkpoint(state, tracker, last=last)
        if count:
            self._reported_at = now
        for state in states.values():  # its step's report came before it was asked for
            self.outputs.inspect(state, tracker, last=state.step == self.config.train.steps)
            self.outputs.checkpoint(state, tracker, last=True)

    def progress_figures(self, steps: int, tracker: Tracker) -> dict[str, Any]:
        """What every summary begins with."""
        batch_size = self.config.train.batch_size
        clips = (steps - self._first_step) * batch_size
        return {
            "steps": steps,
            "clips": steps * batch_size,
            "loss_first": tracker.metrics.first_loss,
            "loss_last": tracker.metrics.last_loss,
            "clips_per_second": clips / (self._reported_at - self._started_at) if clips else 0.0,
            "videos_quarantined": self._quarantined,
            "resumed_from": self._first_step or None,
        }
