"""What a run does with a training state: checkpoint, pictures, enrichment, each when it is due."""

from __future__ import annotations

import math
from typing import Generic

from tats_ray.config import Config
from tats_ray.config.job import JobConfig
from tats_ray.controller.executor import StateT
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.data.clips import Cursor
from tats_ray.evaluation.enrichment import Enrichment
from tats_ray.evaluation.held_out import HeldOut
from tats_ray.evaluation.inspection import Inspector, random_enrichment
from tats_ray.storage import writing
from tats_ray.tracking.pictures import save_pictures
from tats_ray.tracking.tracker import Tracker
from tats_ray.training.checkpoint import Progress, TrainingState, write_checkpoint


class RunOutputs(Generic[StateT]):
    """Writes checkpoints; what every training job does with its states."""

    def __init__(self, config: JobConfig, directory: RunDirectory) -> None:
        self._job = config
        self.directory = directory
        self.cursors: dict[int, Cursor] = {}  # finished steps -> place in the data behind them

    def wants(self, step: int) -> bool:
        """Whether the state after `step` steps is of use."""
        return _due(step, self._job.checkpoint.interval)

    def inspect(self, state: StateT, tracker: Tracker, *, last: bool) -> dict[str, float]:
        """Looks at a state, at its step or where it is the last.

        Returns:
            Figures that belong to the step's record.
        """
        return {}

    def checkpoint(self, state: StateT, tracker: Tracker, *, last: bool) -> None:
        """Writes a checkpoint where one is due; after the step's record, so that neither a crash
        before it nor one behind it loses or doubles a record."""
        step = state.step
        if not (last or _due(step, self._job.checkpoint.interval)):
            return
        progress = Progress(
            step=step,
            clips=step * self._job.train.batch_size,
            cursor=self.cursors[step],
            policy_version=state.policy_version,
            interval=tracker.interval.begun,
        )
        write_checkpoint(self.directory.checkpoints, state, progress, self._job.checkpoint.keep)
        self.cursors = {done: cursor for done, cursor in self.cursors.items() if done >= step}


class PretrainOutputs(RunOutputs[TrainingState]):
    """Also draws pictures, measures enrichment, and remembers the newest figures."""

    def __init__(self, config: Config, directory: RunDirectory, held_out: HeldOut) -> None:
        super().__init__(config, directory)
        self.config = config
        self.held_out = held_out
        self.enrichment: Enrichment | None = None

    def wants(self, step: int) -> bool:
        tracking = self.config.tracking
        intervals = (tracking.picture_interval, tracking.enrichment_interval)
        return super().wants(step) or any(_due(step, interval) for interval in intervals)

    def inspect(self, state: TrainingState, tracker: Tracker, *, last: bool) -> dict[str, float]:
        """Draws and measures what is due at a state's step; everything, where it is the last.

        Returns:
            Enrichment figures, where they were measured.
        """
        step, tracking = state.train.step, self.config.tracking
        draw = last or _due(step, tracking.picture_interval)
        measure = last or _due(step, tracking.enrichment_interval)
        if not (draw or measure):
            return {}
        inspector = Inspector(self.config, state)
        if draw:
            shown = inspector.inspect(self.held_out.rows(0, tracking.picture_clips))
            with writing(self.directory.pictures):
                files = save_pictures(shown, self.config.grid, self.directory.pictures, step)
            for file in files:
                tracker.mlflow.log_file(file, "pictures")
        if not measure:
            return {}
        self.enrichment = inspector.enrichment(self.held_out)
        return _figures(self.enrichment)

    def random_enrichment(self) -> Enrichment | None:
        """What random masks would show on the same clips."""
        return random_enrichment(self.config, self.held_out)


def _due(step: int, interval: int | None) -> bool:
    return interval is not None and step % interval == 0


def _figures(measured: Enrichment | None) -> dict[str, float]:
    """Finite figures of an enrichment, by name."""
    if measured is None:
        return {}
    figures = {"enrichment/moving": measured.moving, "enrichment/static": measured.static}
    return {name: value for name, value in figures.items() if math.isfinite(value)}
