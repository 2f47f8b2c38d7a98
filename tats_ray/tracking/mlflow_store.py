"""What a run does with an MLflow store, one call after the other; every call may be repeated.

A slow server may do what a client has given up waiting for. So a run is found again by a key of its
own, and points are sent again with the time they had, which the store then knows.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from tats_ray.config.job import TrackedConfig
from tats_ray.config.load import flatten
from tats_ray.tracking.sqlite_file import make_sqlite_file

_LONGEST_VALUE = 500
_POINTS_PER_CALL = 1000  # MLflow's limit
_PARAMS_PER_CALL = 100  # MLflow's limit
_KEY = "tats_ray.key"
_PROGRESS = ("loss", "lr")  # a record has one of them at least

# MLflow would ask again for minutes inside one call; who calls repeats it, with a pause of its own.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}


class MLflowStore:
    """One run in the tracking store. Every method raises whatever the client raises."""

    def __init__(self, config: TrackedConfig, run_id: str | None, key: str) -> None:
        """Imports MLflow; asks nothing of the store.

        Args:
            run_id: of a run to continue.
            key: the same for every part of a run, and for no other run.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # It would print the address at a run's end, with the password that may be in it.
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        import mlflow  # noqa: F401 - here, where no other thread imports

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # Its tracebacks of a database that is full, read-only or gone: who calls says it in a line.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self._client: Any = None
        self._config = config
        self._key = key
        self._wanted = run_id
        self._unsent: list[Any] = []
        self.run_id = ""
        self.ready = False
        self.last_step = 0

    def find(self) -> str:
        """Finds the run or creates it, before any other call; returns its id."""
        if self._client is None:
            self._client = _client(tracking_uri(self._config))
        run = self._known_run() or self._create_run()
        self.run_id = run.info.run_id
        return self.run_id

    def prepare(self) -> None:
        """Has the run going on; sends what parameters the store lacks."""
        run = self._client.get_run(self.run_id)
        if run.info.status != "RUNNING":
            self._client.update_run(self.run_id, status="RUNNING")
        self._log_params(run.data.params)
        self.last_step = self._logged_step(run.data.metrics)
        self.ready = True

    def log_records(self, records: list[dict[str, Any]]) -> None:
        """Sends records with a step behind the newest; after an error the next call sends these
        first."""
        fresh = [record for record in records if record["step"] > self.last_step]
        for record in fresh:
            figures = {name: value for name, value in record.items() if name != "step"}
            self._unsent += metrics(figures, record["step"])
            self.last_step = record["step"]
        while self._unsent:
            self._client.log_batch(self.run_id, metrics=self._unsent[:_POINTS_PER_CALL])
            del self._unsent[:_POINTS_PER_CALL]

    def log_metrics(self, points: list[Any]) -> None:
        """Sends what `metrics` makes."""
        self._client.log_batch(self.run_id, metrics=points)

    def log_file(self, path: Path, folder: str) -> None:
        """Stores a file under a folder of the run's artifacts."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def stored_files(self, folder: str) -> set[str]:
        """Names of the files in a folder of the run's artifacts."""
        return {Path(file.path).name for file in self._client.list_artifacts(self.run_id, folder)}

    def finish(self, status: str) -> None:
        """Ends the run as FINISHED, KILLED or FAILED."""
        self._client.set_terminated(self.run_id, status)

    def _known_run(self) -> Any:
        """The run of the given id, unless the store is another one now."""
        from mlflow.exceptions import MlflowException

        if self._wanted is None:
            return None
        try:
            return self._client.get_run(self._wanted)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _create_run(self) -> Any:
        """A new run, unless one with our key has come to be behind a call that failed."""
        experiment = self._experiment()
        found = self._client.search_runs(
            [experiment], filter_string=f"tags.`{_KEY}` = '{self._key}'", max_results=1
        )
        if found:
            return found[0]
        tags, parent = {_KEY: self._key}, self._config.tracking.parent
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        return self._client.create_run(experiment, run_name=self._config.run.name, tags=tags)

    def _experiment(self) -> str:
        name = self._config.tracking.experiment
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return known.experiment_id
        location = None
        if _is_database(tracking_uri(self._config)):
            # MLflow would put artifacts under the current directory, which a job loses at its end.
            location = (self._config.output_dir / "mlflow_artifacts").as_uri()
        return self._client.create_experiment(name, artifact_location=location)

    def _log_params(self, stored: dict[str, str]) -> None:
        from mlflow.entities import Param

        flat = flatten(self._config.model_dump())
        params = [
            Param(key, str(value)[:_LONGEST_VALUE])
            for key, value in flat.items()
            if key not in stored
        ]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            part = params[start : start + _PARAMS_PER_CALL]
            self._client.log_batch(self.run_id, params=part)

    def _logged_step(self, stored: dict[str, float]) -> int:
        """The newest step that the store has a record of, 0 for none."""
        points = [
            point
            for name in _PROGRESS
            if name in stored
            for point in self._client.get_metric_history(self.run_id, name)
        ]
        return max((point.step for point in points), default=0)


def _client(uri: str) -> Any:
    """A client; where the store is a database, this opens it and makes its tables."""
    from mlflow import MlflowClient

    if _is_database(uri):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 0  # as _ENVIRONMENT, for which databases have no variable
        make_sqlite_file(uri)
    return MlflowClient(tracking_uri=uri)


def _is_database(uri: str) -> bool:
    """Whether the client itself opens a database, and asks no server."""
    from mlflow.store.db.db_types import DATABASE_ENGINES
    from mlflow.utils.uri import get_uri_scheme

    return get_uri_scheme(uri) in DATABASE_ENGINES


def metrics(figures: dict[str, float], step: int) -> list[Any]:
    """Points of a step, with the time of this call."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in figures.items()]


def tracking_uri(config: TrackedConfig) -> str:
    """`tracking.uri`, or the SQLite file of the output directory; always absolute."""
    if config.tracking.uri is not None:
        return config.tracking.uri
    return f"sqlite:///{config.output_dir / 'mlflow.db'}"
