"""The MLflow run: parameters, metrics, config and pictures, from a thread of the controller.

Nothing here waits for the store but `finish`, and that for a limited time. The thread looks for new
records in `metrics.jsonl` every second; everything else waits in a queue of limited length.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tats_ray.config.job import TrackedConfig
from tats_ray.config.load import flatten
from tats_ray.config.runtime import without_secrets
from tats_ray.tracking.console import RepeatedWarning, log
from tats_ray.tracking.metrics_file import RecordReader
from tats_ray.tracking.mlflow_compat import prepare_database

_MOST_CALLS, _RECORDS_AT_ONCE = 1000, 200
_STOP_SECONDS = 5.0  # schedulers wait half a minute at most before they kill
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds; the longest between calls that fail

Call = Callable[[Any, str], Any]  # of the client, for the run of this id


class MLflowRun:
    """One run of the tracking store; `run_id` is None until the store has answered."""

    def __init__(
        self,
        config: TrackedConfig,
        key: str | None = None,
        *,
        records: Path | None = None,
        found: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        """Starts a run in the background, or continues the one with this key.

        Args:
            records: `metrics.jsonl`, which the store catches up from.
            found: called with the run's id, from the background, as soon as it is known.
        """
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the thread repeats calls
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it may hold a password
        import mlflow  # noqa: F401  # here, where no other thread imports

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.run_id: str | None = None
        self._config, self._key, self._found = config, key or uuid.uuid4().hex, found
        self._reader = None if records is None else RecordReader(records)
        self._run: StoredRun | None = None
        self._points: list[Any] = []  # of records, on their way to the store
        self._calls: deque[Call] = deque()
        self._lost = self._complete = False
        self._status: str | None = None
        self._known, self._ending, self._over = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def wait_id(self) -> None:
        """Waits until `run_id` is known, `tracking.wait_seconds` at most."""
        self._known.wait(self._config.tracking.wait_seconds)

    def log_result(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of a finished run, as `test/<name>`."""
        points = points_of(step, {f"test/{name}": value for name, value in metrics.items()})
        self._queue(lambda client, run_id: client.log_batch(run_id, points, synchronous=True))

    def log_file(self, path: Path, folder: str) -> None:
        """Stores a file under a folder of the run's artifacts."""
        self._queue(lambda client, run_id: client.log_artifact(run_id, str(path), folder))

    def log_folder(self, path: Path, folder: str) -> None:
        """Stores those files of a directory that the folder of the run's artifacts lacks."""
        files = sorted(path.glob("*"))

        def send(client: Any, run_id: str) -> None:
            stored = {Path(file.path).name for file in client.list_artifacts(run_id, folder)}
            for file in files:
                if file.name not in stored:
                    client.log_artifact(run_id, str(file), folder)

        self._queue(send)

    def finish(self, status: str) -> bool:
        """Ends the run as FINISHED, KILLED or FAILED; returns whether the store has everything.

        It has `tracking.wait_seconds` to take the rest, less where the run was asked to stop.
        """
        seconds = self._config.tracking.wait_seconds
        seconds = min(seconds, _STOP_SECONDS) if status == "KILLED" else seconds
        self._status = status
        self._ending.set()
        self._thread.join(seconds)
        self._over.set()
        if not self._complete:
            log(
                f"MLflow did not receive everything within {seconds:g} s (tracking.wait_seconds); "
                "run the same command again to upload the rest"
            )
        return self._complete

    def _queue(self, call: Call) -> None:
        if len(self._calls) < _MOST_CALLS:
            self._calls.append(call)
        else:
            self._lost = True  # the end reports it, and the same command again sends it

    def _work(self) -> None:
        warning, pause = RepeatedWarning(), _PAUSE
        while not self._over.is_set():
            status = self._status  # read first: what was handed over before it is sent before it
            try:
                self._send(status)
                pause = _PAUSE
                if self._complete or not self._over.is_set():
                    warning.end("MLflow is reachable again and has all records")
            except Exception as error:  # of whatever kind: no store may stop a run
                pause = min(2 * pause, _LONGEST_PAUSE) if status is None else _PAUSE
                if not self._over.is_set():
                    warning.log(
                        f"MLflow is unreachable ({reason(error)}); training continues, metrics "
                        "are kept in metrics.jsonl and uploaded later"
                    )
            (self._ending if status is None else self._over).wait(pause)

    def _send(self, status: str | None) -> None:
        """Sends all there is, and the status at last; raises what the first failing call raises."""
        if self._run is None:
            self._run = open_run(self._config, self._key, self._record_id)
        client, run_id, last_step = self._run
        while self._reader is not None and not self._over.is_set():
            if not self._points:  # else a call failed, and these are sent again
                for record in self._reader.read(_RECORDS_AT_ONCE, last_step):
                    self._points += points_of(record.pop("step"), record)
            if not self._points:
                break
            client.log_batch(run_id, self._points, synchronous=True)
            self._points = []
        while self._calls and not self._over.is_set():
            call = self._calls.popleft()
            try:
                call(client, run_id)
            except Exception:
                self._queue(call)  # behind the others: one that never works must not stop them
                raise
        if status is not None and not self._over.is_set():
            client.set_terminated(run_id, status)
            self._complete = not self._lost
            self._over.set()

    def _record_id(self, run_id: str) -> None:
        self.run_id = run_id
        self._found(run_id)
        self._known.set()


def reason(error: BaseException) -> str:
    """The first line of an error; of a database's own one, which SQLAlchemy and MLflow wrap."""
    cause: BaseException | None = error
    while cause is not None and getattr(cause, "orig", None) is None:
        cause = cause.__cause__ or cause.__context__
    error = getattr(cause, "orig", error)
    lines = str(error).strip().splitlines() or ["no message"]
    return without_secrets(f"{type(error).__name__}: {lines[0]}")[:300]


_LONGEST_VALUE = 500
_KEY = "tats_ray.key"
_PROGRESS = ("loss", "lr")  # a record has one of them at least
_DATABASES = {"postgresql", "mysql", "sqlite", "mssql"}  # which the client opens itself


class StoredRun(NamedTuple):
    """An open run: its client, its id, and the newest step that the store has a record of."""

    client: Any
    run_id: str
    last_step: int


def open_run(config: TrackedConfig, key: str, found: Callable[[str], None]) -> StoredRun:
    """Finds the run or creates it, marks it as running, and sends the parameters that it lacks.

    Args:
        key: the same for every part of a run, and for no other run.
        found: as of `MLflowRun`.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Param

    uri, location = config.tracking_uri, None
    if uri.partition(":")[0].partition("+")[0] in _DATABASES:
        prepare_database(uri)
        # MLflow would put artifacts under the current directory, which a job loses at its end.
        location = (config.output_dir / "mlflow_artifacts").as_uri()
    client = MlflowClient(tracking_uri=uri)
    run = _find(client, config, key, location)
    found(run_id := run.info.run_id)
    client.update_run(run_id, status="RUNNING")
    flat, stored = flatten(config.model_dump()), run.data.params
    missing = [Param(k, str(v)[:_LONGEST_VALUE]) for k, v in flat.items() if k not in stored]
    client.log_batch(run_id, params=missing, synchronous=True)
    points = [point for name in _PROGRESS for point in client.get_metric_history(run_id, name)]
    return StoredRun(client, run_id, max((point.step for point in points), default=0))


def points_of(step: int, metrics: Mapping[str, float]) -> list[Any]:
    """Points with the time of this call."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in metrics.items()]


def _find(client: Any, config: TrackedConfig, key: str, location: str | None) -> Any:
    """The run of the key in the experiment of the config; makes whichever does not exist."""
    name, parent = config.tracking.experiment, config.tracking.parent
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name, location)
    query = f"tags.`{_KEY}` = '{key}'"
    for run in client.search_runs([experiment], filter_string=query, max_results=1):
        return run
    tags = {_KEY: key} | ({} if parent is None else {"mlflow.parentRunId": parent})
    return client.create_run(experiment, run_name=config.run.name, tags=tags)
