"""The MLflow run: parameters, metrics, config and pictures, from the driver only."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Protocol

from tats_ray.config.job import TrackedConfig
from tats_ray.tracking.interval import Record

_LONGEST_VALUE = 500


class TrackedRun(Protocol):
    """Where records go beside the run directory."""

    run_id: str | None

    def log(self, record: Record) -> None: ...

    def log_file(self, path: Path, folder: str) -> None: ...

    def finish(self, status: str) -> None: ...


class UntrackedRun:
    """Nowhere: `tracking.mlflow` is false."""

    run_id: str | None = None

    def log(self, record: Record) -> None: ...

    def log_file(self, path: Path, folder: str) -> None: ...

    def finish(self, status: str) -> None: ...


class MLflowRun:
    """One run of the tracking store, continued by id after a restart."""

    def __init__(self, config: TrackedConfig, run_id: str | None) -> None:
        """Starts a run, or continues `run_id`."""
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = mlflow.MlflowClient(tracking_uri=tracking_uri(config))
        if run_id is None:
            experiment = self._experiment(config)
            run = self._client.create_run(experiment, run_name=config.run.name)
            run_id = run.info.run_id
            if config.tracking.parent is not None:
                self._client.set_tag(run_id, "mlflow.parentRunId", config.tracking.parent)
            self._log_params(run_id, config)
        else:
            self._client.update_run(run_id, status="RUNNING")
        self.run_id: str | None = run_id
        self._id: str = run_id
        self._last_step = self._logged_step()

    def log(self, record: Record) -> None:
        """One batched call; a step that the store already has is not logged twice."""
        from mlflow.entities import Metric

        if record.step <= self._last_step:
            return
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, record.step) for key, value in record.figures.items()]
        self._client.log_batch(self._id, metrics=metrics)
        self._last_step = record.step

    def log_result(self, step: int, figures: dict[str, float]) -> None:
        """Figures of a finished run, as `test/<name>`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(f"test/{name}", value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def log_file(self, path: Path, folder: str) -> None:
        """Stores a file under a folder of the run's artifacts."""
        self._client.log_artifact(self._id, str(path), folder)

    def finish(self, status: str) -> None:
        """Ends the run as FINISHED, KILLED or FAILED."""
        self._client.set_terminated(self._id, status)

    def _experiment(self, config: TrackedConfig) -> str:
        name = config.tracking.experiment
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return known.experiment_id
        local = config.tracking.uri is None
        # With a local store, MLflow would put artifacts under the current directory.
        location = (output_dir(config) / "mlflow_artifacts").as_uri() if local else None
        return self._client.create_experiment(name, artifact_location=location)

    def _log_params(self, run_id: str, config: TrackedConfig) -> None:
        from mlflow.entities import Param

        flat = flatten(config.model_dump())
        params = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in flat.items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(run_id, params=params[start : start + 100])

    def _logged_step(self) -> int:
        """The newest step whose loss the store has, 0 for none."""
        history = self._client.get_metric_history(self._id, "loss")
        return max((point.step for point in history), default=0)


def tracking_uri(config: TrackedConfig) -> str:
    """`tracking.uri`, or the SQLite file of the output directory; always absolute."""
    if config.tracking.uri is not None:
        return config.tracking.uri
    return f"sqlite:///{output_dir(config) / 'mlflow.db'}"


def output_dir(config: TrackedConfig) -> Path:
    """`run.output_dir`, absolute."""
    return Path(config.run.output_dir).absolute()


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections -> dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
