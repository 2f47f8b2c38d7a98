"""The driver of a pre-training run: data in, rounds, records, checkpoints, summary."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tats_ray.config import Config
from tats_ray.data.clips import Cursor
from tats_ray.data.manifest import read_manifest
from tats_ray.data.quarantine import check_share
from tats_ray.data.stage import BlockPlan, build_plan
from tats_ray.data.synthetic.generate import ensure_synthetic
from tats_ray.evaluation.held_out import load_held_out
from tats_ray.runtime.backend import Backend, Finished
from tats_ray.runtime.outputs import RunOutputs
from tats_ray.runtime.run_directory import RunDirectory
from tats_ray.runtime.signals import StopRequest
from tats_ray.tracking.console import say, say_summary
from tats_ray.tracking.mlflow_run import output_dir
from tats_ray.tracking.tracker import Tracker
from tats_ray.training.checkpoint import (
    Progress,
    TrainingState,
    checkpoints,
    read_progress,
    read_state,
)

HELD_OUT_CLIPS = 64  # clips that enrichment is measured on


def pretrain(config: Config, *, must_resume: bool) -> dict[str, Any]:
    """Runs, or continues, the configured run; returns its summary.

    Raises:
        TatsRayError: a fault for the user, in one line.
    """
    check_model_files(config)
    manifest, held_out_manifest = _manifests(config)
    plan = build_plan(config, read_manifest(manifest))
    directory = RunDirectory(config)
    directory.open(Path(manifest), must_exist=must_resume)
    try:
        done = directory.summary()
        if done:
            say(f"{directory.path}: complete with {done['steps']} steps; nothing to do")
            return done
        held_out = load_held_out(config, held_out_manifest, HELD_OUT_CLIPS)
        outputs = RunOutputs(config, directory, held_out)
        summary = PretrainRun(config, directory, plan, outputs, StopRequest()).run()
        say_summary(str(directory.path), summary)
        return summary
    finally:
        directory.close()


def check_model_files(config: Config) -> None:
    """Loads the files that the model starts from, so that a fault shows before workers start.

    Raises:
        TatsRayError: names the field or file.
    """
    if config.train.initial_weights or config.model.feature_target.encoder:
        import torch

        from tats_ray.training.trainer import MAETrainer

        MAETrainer(config, torch.device("cpu"))


class PretrainRun:
    """One process's part of a run: from its last checkpoint to the end, or to a signal."""

    def __init__(
        self,
        config: Config,
        directory: RunDirectory,
        plan: BlockPlan,
        outputs: RunOutputs,
        stop: StopRequest,
    ) -> None:
        self.config = config
        self.directory = directory
        self.plan = plan
        self.outputs = outputs
        self.stop = stop
        self._videos = len(plan.manifest["path"].unique())
        self._quarantined = len(directory.quarantine())
        self._first_step = 0
        self._data_seconds: dict[int, float] = {}
        self._reported_at = 0.0
        self._started_at = 0.0

    def run(self) -> dict[str, Any]:
        """Trains; returns the summary."""
        progress, state = self._restore()
        tracker = self._open_tracker(progress)
        backend = build_backend(self.config, self.plan, self.directory)
        status = "FAILED"
        try:
            backend.start(state, progress.cursor, self._first_step)
            self.stop.install()
            steps = self._rounds(backend, tracker)
            self._take(backend.finish(steps), tracker, last_step=steps)
            status = "KILLED"
            if steps < self.config.train.steps:
                return self._summarize(steps, tracker, backend)
            tracker.close_interval()
            summary = self._summarize(steps, tracker, backend)
            self.directory.write_summary(summary)
            status = "FINISHED"
            return summary
        finally:
            backend.close()
            tracker.close(status)

    def _restore(self) -> tuple[Progress, TrainingState | None]:
        """The newest checkpoint, or the beginning."""
        found = checkpoints(self.directory.checkpoints)
        progress = read_progress(found[-1]) if found else Progress(0, 0, Cursor(), 0)
        self._first_step = progress.step
        self.outputs.cursors[progress.step] = progress.cursor
        if not found:
            return progress, None
        say(f"continuing {self.directory.path} after step {progress.step}")
        return progress, read_state(found[-1])

    def _open_tracker(self, progress: Progress) -> Tracker:
        directory = self.directory
        tracker = Tracker(
            self.config,
            directory.metrics,
            mlflow_run_id=directory.identity().get("mlflow_run_id"),
            resumed_step=progress.step,
            begun=progress.interval,
        )
        directory.update_identity(mlflow_run_id=tracker.mlflow.run_id)
        tracker.mlflow.log_file(directory.config_file, "config")
        return tracker

    def _rounds(self, backend: Backend, tracker: Tracker) -> int:
        """Hands in every step until the end or a signal; returns how many steps there are."""
        batch_size = self.config.train.batch_size
        self._started_at = self._reported_at = time.monotonic()
        for step in range(self._first_step, self.config.train.steps):
            if self.stop.is_set:
                say(f"asked to stop: finishing step {step} and writing a checkpoint")
                return step
            started = time.monotonic()
            batch = backend.next_batch(step * batch_size, batch_size)
            self._data_seconds[step + 1] = time.monotonic() - started
            self._check_videos(backend.quarantined())
            self.outputs.cursors[step + 1] = batch.after
            backend.run_round(step, batch, snapshot=self.outputs.wants(step + 1))
            self._take(backend.finished(), tracker)
        return self.config.train.steps

    def _check_videos(self, reasons: dict[str, str]) -> None:
        """Notes newly broken videos; too many of them end the run."""
        if len(reasons) > self._quarantined:
            self._quarantined = len(reasons)
            self.directory.write_quarantine(reasons)
            path, reason = next(reversed(reasons.items()))
            say(f"{len(reasons)} broken videos so far; the last: {path}: {reason}")
        check_share(reasons, self._videos, self.config.data.broken_share)

    def _take(self, finished: Finished, tracker: Tracker, last_step: int | None = None) -> None:
        """Records finished steps, and uses the states that came with them."""
        states = {state.train.step: state for state in finished.states}
        now, count = time.monotonic(), len(finished.reports)
        for report in finished.reports:
            figures = report.figures | {
                "time/step_seconds": (now - self._reported_at) / count,
                "time/data_seconds": self._data_seconds.pop(report.step),
            }
            state, last = states.pop(report.step, None), report.step == last_step
            if state is not None:
                figures |= self.outputs.inspect(state, tracker, last=last)
            tracker.step(report.step, figures)
            if state is not None:
                self.outputs.checkpoint(state, tracker, last=last)
        if count:
            self._reported_at = now
        for state in states.values():  # its step's report came before it was asked for
            self.outputs.inspect(state, tracker, last=True)
            self.outputs.checkpoint(state, tracker, last=True)

    def _summarize(self, steps: int, tracker: Tracker, backend: Backend) -> dict[str, Any]:
        learned, chance = self.outputs.enrichment, self.outputs.random_enrichment()
        clips = (steps - self._first_step) * self.config.train.batch_size
        return {
            "steps": steps,
            "clips": steps * self.config.train.batch_size,
            "loss_first": tracker.metrics.first_loss,
            "loss_last": tracker.metrics.last_loss,
            "motion_enrichment": None if learned is None else learned.moving,
            "static_enrichment": None if learned is None else learned.static,
            "motion_enrichment_random": None if chance is None else chance.moving,
            "clips_per_second": clips / (self._reported_at - self._started_at) if clips else 0.0,
            "videos_quarantined": len(backend.quarantined()),
            "mlflow_run_id": tracker.mlflow.run_id,
            "resumed_from": self._first_step or None,
        }


def build_backend(config: Config, plan: BlockPlan, directory: RunDirectory) -> Backend:
    """The backend of `cluster.mode`. Ray is imported, started and checked for Ray modes only.

    Raises:
        ResourceError: there is no cluster, or it is too small for the configured actors.
    """
    quarantined = directory.quarantine()
    if config.cluster.mode == "serial":
        from tats_ray.runtime.serial_backend import SerialBackend

        return SerialBackend(config, plan, quarantined)
    from tats_ray.runtime.cluster import cluster_resources, connect, preflight

    connect(config)
    shares = preflight(config, *cluster_resources())
    from tats_ray.runtime.ray_backend import RayBackend

    return RayBackend(config, plan, quarantined, shares=shares, storage=directory.ray_train)


def _manifests(config: Config) -> tuple[str, str]:
    """Training and held-out manifests; makes the synthetic set where none is given."""
    data = config.data
    if data.manifest is not None:
        return data.manifest, data.held_out_manifest or data.manifest
    made = ensure_synthetic(data.synthetic, output_dir(config))
    return str(made.train), data.held_out_manifest or str(made.held_out)
