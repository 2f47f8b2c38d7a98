"""Opens a run in an MLflow store. All of it may be repeated until it succeeds.

A slow server may still do what a client has given up waiting for. So a run is found again by a key
of its own, and points are sent again with the time they had, which the store then recognises.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tats_ray.config.job import TrackedConfig
from tats_ray.config.load import flatten
from tats_ray.tracking.mlflow_compat import prepare_database

_LONGEST_VALUE = 500
_KEY = "tats_ray.key"
_PROGRESS = ("loss", "lr")  # a record has one of them at least
_DATABASES = {"postgresql", "mysql", "sqlite", "mssql"}  # which the client opens itself


class StoredRun(NamedTuple):
    """An open run: its client, its id, and the newest step that the store has a record of."""

    client: Any
    run_id: str
    last_step: int


def import_mlflow() -> None:
    """Imports MLflow, with its settings; to be called where no other thread imports."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the caller repeats calls
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it may hold a password
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def open_run(config: TrackedConfig, key: str, found: Callable[[str], None]) -> StoredRun:
    """Finds the run or creates it, marks it as running, and sends the parameters that it lacks.

    Args:
        key: the same for every part of a run, and for no other run.
        found: called with the run's id as soon as it is known.
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
