"""One process's part of any training run: from its newest checkpoint to the end, to a signal or to
a fault; what is lost on the way is replaced."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from tats_ray.config.job import JobConfig
from tats_ray.controller.executor import Executor, ExecutorLostError, StartingPoint, Task
from tats_ray.controller.held_out_inspection import HeldOutInspection
from tats_ray.controller.in_process import in_process
from tats_ray.controller.loop import run_iterations
from tats_ray.controller.mlflow_link import open_mlflow
from tats_ray.controller.records import NonFiniteSteps, RunRecords
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.controller.signals import StopRequest
from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.data.synthetic.generate import ensure_synthetic
from tats_ray.errors import (
    CheckpointError,
    ComponentFailedError,
    NonFiniteError,
    StorageError,
    TatsRayError,
)
from tats_ray.tracking.console import log
from tats_ray.tracking.metrics_file import MetricsFile
from tats_ray.tracking.tracker import Tracker
from tats_ray.training.checkpoint import MEND, Progress, checkpoints, read_progress


def run_task(
    task: Task,
    directory: RunDirectory,
    stop: StopRequest,
    inspection: HeldOutInspection | None = None,
) -> dict[str, Any]:
    """Trains; returns the summary. A lost executor is replaced by another one, which continues from
    the newest checkpoint.

    Raises:
        ComponentFailedError: executors were lost more than `train.max_failures` times.
    """
    stop.install()
    restarts, limit = 0, task.config.train.max_failures
    while True:
        try:
            return _run_part(task, directory, stop, inspection)
        except ExecutorLostError as error:
            if restarts == limit:
                raise ComponentFailedError(
                    f"the hub died after train.max_failures={limit} restarts: {error}"
                ) from None
            restarts += 1
            log(f"the hub died; continuing from a checkpoint, restart {restarts} of {limit}")


def manifests(config: JobConfig, test: str | None) -> tuple[str, str | None]:
    """The training manifest, and the held-out or test one; the synthetic set where no training
    manifest is given."""
    if config.data.manifest is not None:
        return config.data.manifest, test
    made = ensure_synthetic(config.data.synthetic, config.output_dir)
    return str(made.train), test or str(made.held_out)


def open_executor(task: Task, start: StartingPoint) -> AbstractContextManager[Executor]:
    """The executor of `cluster.mode`. Ray is imported, started and checked for Ray modes only.

    Raises:
        ResourceError: there is no cluster, or it is too small for what the run needs at once.
    """
    config = task.config
    if config.cluster.mode == "serial":
        return in_process(task, start)
    from tats_ray.actors.cluster import cluster_resources, connect, preflight, warn_of_small_store
    from tats_ray.actors.placement import check_placement, cluster_nodes

    connect(config)
    warn_of_small_store(config, task.build_model)
    resources = preflight(config, *cluster_resources())
    check_placement(config, resources, cluster_nodes())
    from tats_ray.controller.ray_executor import on_ray

    return on_ray(task, start, resources)


def _run_part(
    task: Task,
    directory: RunDirectory,
    stop: StopRequest,
    inspection: HeldOutInspection | None,
) -> dict[str, Any]:
    """Trains with one executor; returns the summary."""
    start = _starting_point(task, directory)
    opening = open_executor(task, start)
    metrics = MetricsFile(directory.metrics, start.progress.step)
    mlflow = open_mlflow(task.config, directory)
    tracker = Tracker(task.config, metrics, mlflow, start.progress.interval)
    status, summary = "FAILED", {}
    with stop.deferring():
        try:
            with ExitStack() as parts:
                with stop.interrupting():
                    executor = parts.enter_context(opening)
                records = RunRecords(
                    task, directory, tracker, inspection, start.progress, executor.quarantined
                )
                steps = _iterate(task, executor, records, stop, directory)
                if steps < task.config.train.steps:
                    status, summary = "KILLED", records.summary(steps)
                else:
                    tracker.close_interval()
                    summary = records.summary(steps)
                    directory.write_summary(summary)
                    status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            directory.update_identity(mlflow_synchronised=tracker.close(status))
    # Known at the latest here, if ever.
    summary["mlflow_run_id"] = tracker.mlflow.run_id
    if status == "FINISHED":
        directory.write_summary(summary)
    return summary


def _iterate(
    task: Task,
    executor: Executor,
    records: RunRecords,
    stop: StopRequest,
    directory: RunDirectory,
) -> int:
    """All iterations; returns the number of finished steps."""

    def next_batch(step: int) -> ClipBatch | None:
        batch = stop.unless_asked(lambda: executor.next_batch(step))  # clips may be long in coming
        if batch is None:
            log(f"asked to stop: finishing step {step} and writing a checkpoint")
        return batch

    steps = range(records.first_step, task.config.train.steps)
    try:
        done = run_iterations(executor, records, steps, next_batch)
        records.collect(executor.finish(done), last_step=done)
        return done
    except TatsRayError as error:
        _take_rest(executor, records, error)
        if isinstance(error, NonFiniteError):
            raise NonFiniteSteps(task.plan, directory).named(error) from None
        raise


def _take_rest(executor: Executor, records: RunRecords, fault: TatsRayError) -> None:
    """Steps that were done before the fault keep their records and checkpoints."""
    try:
        records.collect(executor.completed())
    except StorageError as error:
        if not isinstance(fault, StorageError):
            log(f"what was done before the fault could not be stored: {error}")
    except TatsRayError:
        pass  # the fault itself, raised again


def _check_place(checkpoint: Path, progress: Progress, task: Task) -> None:
    """Whether the numbers fit the run and each other; else it would train on from anywhere."""
    train, passed = task.config.train, progress.cursor.block * task.plan.data.block_clips
    if progress.step > train.steps:
        fault = f"step {progress.step} is beyond train.steps {train.steps}"
    elif progress.clips != progress.step * train.batch_size:
        fault = f"{progress.clips} clips are not {progress.step} steps of {train.batch_size}"
    elif passed + progress.cursor.row < progress.clips:
        fault = f"cursor {progress.cursor} comes before {progress.clips} clips"
    else:
        return
    raise CheckpointError(f"{checkpoint / 'progress.json'}: {fault}; {MEND}")


def _starting_point(task: Task, directory: RunDirectory) -> StartingPoint:
    """The newest checkpoint, or the beginning."""
    found = checkpoints(directory.checkpoints)
    progress, state = Progress(0, 0, Cursor(), 0), None
    if found:
        progress = read_progress(found[-1])
        _check_place(found[-1], progress, task)
        log(f"continuing {directory.path} after step {progress.step}")
        state = task.read_state(found[-1])
    return StartingPoint(progress, state, directory.quarantine(), directory.ray_train)
