"""Metrics of single steps, averaged over logging intervals, for console, file and MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tats_ray.config.job import JobConfig
from tats_ray.tracking.console import log_record
from tats_ray.tracking.metrics_file import MetricsFile, Record
from tats_ray.tracking.mlflow_run import MLflowRun

# name -> (sum, count) of an interval that has begun
OpenInterval = dict[str, tuple[float, int]]

# Counts over the whole run: a record has their newest value, not a mean.
_COUNTS = {"skipped_steps", "ppo/skipped_updates"}


class IntervalMean:
    """Collects the metrics of consecutive steps and closes a record at each multiple of `every`."""

    def __init__(self, every: int, begun: OpenInterval | None = None) -> None:
        """Args: begun: what a checkpoint kept of the interval it fell into."""
        self.every = every
        self._sums: OpenInterval = dict(begun or {})
        self._last = 0

    @property
    def begun(self) -> OpenInterval:
        """The interval as it stands, for a checkpoint."""
        return dict(self._sums)

    def add(self, step: int, metrics: dict[str, float]) -> Record | None:
        """Takes in one step; returns the record that it completes, if any."""
        for name, value in metrics.items():
            total, count = (0.0, 0) if name in _COUNTS else self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        self._last = step
        return self.close() if step % self.every == 0 else None

    def close(self) -> Record | None:
        """Ends the interval early; None where it is empty."""
        if not self._sums:
            return None
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return Record(self._last, means)


class UntrackedRun:
    """Nowhere: `tracking.mlflow` is false."""

    run_id: str | None = None

    def log_result(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def log_file(self, path: Path, folder: str) -> None: ...

    def finish(self, status: str) -> bool:
        return True


TrackedRun = MLflowRun | UntrackedRun  # where a run is recorded beside its directory


class Tracker:
    """Takes the metrics of each step in order and writes a record per interval."""

    def __init__(
        self, config: JobConfig, metrics: MetricsFile, mlflow: TrackedRun, begun: OpenInterval
    ) -> None:
        """Args: begun: the logging interval that the checkpoint fell into."""
        self._steps = config.train.steps
        self._batch_size = config.train.batch_size
        self.interval = IntervalMean(config.tracking.log_interval, begun)
        self.metrics = metrics
        self.mlflow = mlflow

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Takes in one finished step, in order."""
        self._write(self.interval.add(step, metrics))

    def close_interval(self) -> None:
        """Writes an interval that the run's end cut short."""
        self._write(self.interval.close())

    def close(self, status: str) -> bool:
        """Ends the records, and the MLflow run with a status; returns whether MLflow has all."""
        self.metrics.close()
        return self.mlflow.finish(status)

    def _write(self, record: Record | None) -> None:
        if record is None:
            return
        metrics = record.metrics
        seconds = metrics.get("time/step_seconds", 0.0)
        if seconds > 0:
            metrics["time/clips_per_second"] = self._batch_size / seconds
            metrics["time/data_share"] = metrics.get("time/data_seconds", 0.0) / seconds
        self.metrics.write(record)
        log_record(record, self._steps)
