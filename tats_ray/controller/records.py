"""What becomes of finished steps: records, checkpoints, pictures, the list of broken videos, and
the steps that were not finite with the videos that they stepped on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tats_ray.config.job import JobConfig
from tats_ray.controller.executor import Completed, Task
from tats_ray.controller.held_out_inspection import HeldOutInspection
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.data.sampling import manifest_rows
from tats_ray.data.stage import BlockPlan, check_share
from tats_ray.errors import Fault, NonFiniteError
from tats_ray.tracking.console import log
from tats_ray.tracking.tracker import Tracker
from tats_ray.training.checkpoint import Progress, RunState, write_checkpoint
from tats_ray.training.reports import StepReport


class RunRecords:
    """Of one process's part of a run, from its last checkpoint on.

    Attributes:
        first_step: finished steps at its beginning.
    """

    def __init__(
        self,
        task: Task,
        directory: RunDirectory,
        tracker: Tracker,
        inspection: HeldOutInspection | None,
        progress: Progress,
        quarantined: Callable[[], Mapping[str, str]],
    ) -> None:
        """
        Args:
            inspection: looks at states; None where they are only stored.
            quarantined: broken videos so far, path -> reason.
        """
        self.first_step = progress.step
        self._task = task
        self._config: JobConfig = task.config
        self._directory = directory
        self._tracker = tracker
        self._inspection = inspection
        self._nonfinite = NonFiniteSteps(task.plan, directory)
        self._videos = len(task.plan.manifest["path"].unique())
        self._quarantined = quarantined
        self._known_broken = len(directory.quarantine())
        self._cursors: dict[int, Cursor] = {progress.step: progress.cursor}  # by finished steps
        self._data_seconds: dict[int, float] = {}
        self._stored = -1  # finished steps of the newest checkpoint of this part
        self._begun_at = self._waiting_since = self._reported_at = time.monotonic()

    def begin(self, step: int, batch: ClipBatch) -> None:
        """Records the wait for the batch, where the batch ends, and newly broken videos.

        Raises:
            TooManyBrokenVideosError: more videos are broken than `data.broken_share` permits.
        """
        self._data_seconds[step + 1] = time.monotonic() - self._waiting_since
        self._cursors[step + 1] = batch.after
        reasons = dict(self._quarantined())
        if len(reasons) > self._known_broken:
            self._known_broken = len(reasons)
            self._directory.write_quarantine(reasons)
            path, reason = next(reversed(reasons.items()))
            log(f"{len(reasons)} broken videos so far; the last: {path}: {reason}")
        check_share(reasons, self._videos, self._config.data.broken_share)

    def wants_state(self, step: int) -> bool:
        inspected = self._inspection is not None and self._inspection.is_due(step)
        return inspected or self._is_last(step) or self._checkpoint_is_due(step)

    def collect(self, completed: Completed, *, last_step: int | None = None) -> None:
        """Records steps and stores states; a state that comes without a report is the last one of a
        run that was asked to stop."""
        states = {state.step: state for state in completed.states}
        now, count = time.monotonic(), len(completed.reports)
        for report in completed.reports:
            seconds = (now - self._reported_at) / count
            self._record(report, states.pop(report.step, None), seconds, last_step)
        if count:
            self._reported_at = now
        for state in states.values():
            self._store(state)
        self._waiting_since = time.monotonic()

    def summary(self, steps: int) -> dict[str, Any]:
        """The run's result after `steps` steps; at its end the content of summary.json."""
        batch_size = self._config.train.batch_size
        clips = (steps - self.first_step) * batch_size
        seconds = self._reported_at - self._begun_at
        return {
            "steps": steps,
            "clips": steps * batch_size,
            "loss_first": self._tracker.metrics.first_loss,
            "loss_last": self._tracker.metrics.last_loss,
            "clips_per_second": clips / seconds if clips else 0.0,
            "videos_quarantined": len(self._quarantined()),
            "resumed_from": self.first_step or None,
            **self._task.facts,
            **({} if self._inspection is None else self._inspection.summary()),
        }

    def _record(
        self, report: StepReport, state: RunState | None, seconds: float, last_step: int | None
    ) -> None:
        for fault in report.skipped:
            self._nonfinite.skipped(fault)
        metrics = report.metrics | {
            "time/step_seconds": seconds,
            "time/data_seconds": self._data_seconds.pop(report.step),
        }
        last = self._is_last(report.step)
        if state is not None and self._inspection is not None:
            metrics |= self._inspection.inspect(state, self._tracker, last=last)
        self._tracker.step(report.step, metrics)
        ends = last or report.step == last_step
        if state is not None and (ends or self._checkpoint_is_due(report.step)):
            self._store(state)

    def _store(self, state: RunState) -> None:
        """Writes a checkpoint; after the step's record, so that neither a crash before it nor one
        behind it loses or doubles a record."""
        step = state.step
        if step == self._stored:
            return
        progress = Progress(
            step=step,
            clips=step * self._config.train.batch_size,
            cursor=self._cursors[step],
            policy_version=state.policy_version,
            interval=self._tracker.interval.begun,
        )
        folder, keep = self._directory.checkpoints, self._config.checkpoint.keep
        write_checkpoint(folder, state, progress, keep)
        self._stored = step
        self._cursors = {done: cursor for done, cursor in self._cursors.items() if done >= step}

    def _is_last(self, step: int) -> bool:
        return step == self._config.train.steps

    def _checkpoint_is_due(self, step: int) -> bool:
        return step % self._config.checkpoint.interval == 0


_NAMED = 4  # paths on the line; the file has all


class NonFiniteSteps:
    """Names the videos, on the line for people and in `nonfinite.jsonl`."""

    def __init__(self, plan: BlockPlan, directory: RunDirectory) -> None:
        self._plan = plan
        self._directory = directory

    def skipped(self, fault: Fault) -> None:
        """Reports a step that was skipped."""
        log(f"{fault.what}; left out{self._record(fault.what, fault.clips)}")

    def named(self, error: NonFiniteError) -> NonFiniteError:
        """The error with the videos in its message; as it is where they are not known."""
        return NonFiniteError(f"{error}{self._record(str(error), error.clips)}", error.clips)

    def _record(self, what: str, clips: tuple[int, ...]) -> str:
        if not clips:
            return ""
        plan, places = self._plan, np.unique(np.array(clips, dtype=np.int64))
        rows = manifest_rows(places, plan.manifest.num_rows, plan.seed, plan.data.repeats)
        paths = list(dict.fromkeys(plan.manifest["path"].take(rows).to_pylist()))
        self._directory.record_nonfinite(what, paths)
        more = len(paths) - _NAMED
        rest = f" and {more} more in {self._directory.nonfinite}" if more > 0 else ""
        return f"; clips of: {', '.join(paths[:_NAMED])}{rest}"
