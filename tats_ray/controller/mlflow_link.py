"""The MLflow run of a run directory: begun, continued, and caught up after the run's end."""

from __future__ import annotations

from collections.abc import Callable

from tats_ray.config.job import JobConfig
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.tracking.mlflow_run import MLflowRun, TrackedRun, UntrackedRun

_SYNCHRONISED = "mlflow_synchronised"


def open_mlflow(config: JobConfig, directory: RunDirectory) -> TrackedRun:
    """Begins or continues the MLflow run; it catches up from what lies in the directory."""
    if not config.tracking.mlflow:
        return UntrackedRun()
    return _open(config, directory)


def note_synchronised(directory: RunDirectory, complete: bool) -> None:
    """Keeps whether MLflow has everything, for the same command again."""
    directory.update_identity(**{_SYNCHRONISED: complete})


def synchronise(
    config: JobConfig,
    directory: RunDirectory,
    also: Callable[[MLflowRun], None] = lambda run: None,
) -> None:
    """Sends MLflow what it has missed of a finished run.

    Args:
        also: hands over what neither the records nor the pictures hold.
    """
    if not config.tracking.mlflow or directory.identity().get(_SYNCHRONISED):
        return
    run = _open(config, directory)
    also(run)
    note_synchronised(directory, run.finish("FINISHED"))
    summary = directory.summary()
    if summary:
        directory.write_summary(summary | {"mlflow_run_id": run.run_id})


def _open(config: JobConfig, directory: RunDirectory) -> MLflowRun:
    identity = directory.identity()
    run = MLflowRun(
        config,
        identity.get("mlflow_run_id"),
        key=identity.get("key"),  # absent from runs of earlier versions
        records=directory.metrics,
        found=lambda run_id: directory.update_identity(mlflow_run_id=run_id),
    )
    note_synchronised(directory, False)
    run.log_file(directory.config_file, "config")
    run.log_folder(directory.pictures, "pictures")
    return run
