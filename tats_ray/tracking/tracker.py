"""All records of a run in one place: console, metrics.jsonl, MLflow, pictures."""

from __future__ import annotations

from tats_ray.config.job import JobConfig
from tats_ray.tracking.console import say_record
from tats_ray.tracking.interval import IntervalMean, OpenInterval, Record
from tats_ray.tracking.metrics_file import MetricsFile
from tats_ray.tracking.mlflow_run import TrackedRun


class Tracker:
    """Takes the figures of each step in order and writes a record per interval."""

    def __init__(
        self,
        config: JobConfig,
        metrics: MetricsFile,
        mlflow: TrackedRun,
        begun: OpenInterval,
    ) -> None:
        """Args: begun: the logging interval that the checkpoint fell into."""
        self._steps = config.train.steps
        self._batch_size = config.train.batch_size
        self.interval = IntervalMean(config.tracking.log_interval, begun)
        self.metrics = metrics
        self.mlflow = mlflow

    def step(self, step: int, figures: dict[str, float]) -> None:
        """Takes in one finished step, in order."""
        self._write(self.interval.add(step, figures))

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
        record = _with_rates(record, self._batch_size)
        self.metrics.write(record)
        self.mlflow.log(record)
        say_record(record, self._steps)


def _with_rates(record: Record, batch_size: int) -> Record:
    """Adds what follows from the mean seconds of a step."""
    figures = dict(record.figures)
    seconds = figures.get("time/step_seconds", 0.0)
    if seconds > 0:
        figures["time/clips_per_second"] = batch_size / seconds
        figures["time/data_share"] = figures.get("time/data_seconds", 0.0) / seconds
    return Record(record.step, figures)
