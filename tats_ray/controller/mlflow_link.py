"""The MLflow run of a run directory: begun, continued, and caught up after the run's end."""

from __future__ import annotations

from collections.abc import Callable

from tats_ray.config.job import JobConfig
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.tracking.mlflow_run import MLflowRun
from tats_ray.tracking.tracker import TrackedRun, UntrackedRun


def open_mlflow(config: JobConfig, directory: RunDirectory) -> TrackedRun:
    """Begins or continues the MLflow run; it catches up from what lies in the directory."""
    if not config.tracking.mlflow:
        return UntrackedRun()
    directory.update_identity(mlflow_synchronised=False)
    run = MLflowRun(
        config,
        directory.identity().get("key"),
        records=directory.metrics,
        found=lambda run_id: directory.update_identity(mlflow_run_id=run_id),
    )
    run.log_file(directory.config_file, "config")
    run.log_folder(directory.pictures, "pictures")
    return run


def synchronise(
    config: JobConfig,
    directory: RunDirectory,
    also: Callable[[TrackedRun], None] = lambda run: None,
) -> None:
    """Sends MLflow what it lacks of a finished run, and what `also` hands over to it."""
    if not config.tracking.mlflow or directory.identity().get("mlflow_synchronised"):
        return
    run = open_mlflow(config, directory)
    also(run)
    directory.update_identity(mlflow_synchronised=run.finish("FINISHED"))
    if summary := directory.summary():
        directory.write_summary(summary | {"mlflow_run_id": run.run_id})
