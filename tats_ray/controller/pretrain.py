"""Pre-training: its task, its data and its run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from tats_ray.config import Config
from tats_ray.controller.executor import Task
from tats_ray.controller.held_out_inspection import HeldOutInspection
from tats_ray.controller.mlflow_link import synchronise
from tats_ray.controller.run import manifests, run_task
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.controller.signals import StopRequest
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import build_plan
from tats_ray.errors import CheckpointError
from tats_ray.models.mae import build_mae
from tats_ray.tracking.console import log, log_summary
from tats_ray.training.checkpoint import RunState, read_state
from tats_ray.training.mae_trainer import MAETrainer


def pretrain(
    config: Config, *, must_resume: bool, stop: StopRequest | None = None
) -> dict[str, Any]:
    """Runs, or continues, the configured run; returns its summary.

    Raises:
        TatsRayError: a fault for the user, in one line.
        KeyboardInterrupt: asked to stop where there was nothing to finish.
    """
    if config.train.initial_weights or config.model.feature_target.encoder:
        # Loads the files that the model starts from, so that a fault shows before workers start.
        MAETrainer(config, torch.device("cpu"))
    manifest, held_out = manifests(config, config.data.held_out_manifest)
    table = read_manifest(manifest)
    config = config.for_videos(table.num_rows)
    task = pretraining_task(config, table)
    directory = RunDirectory(config)
    with directory.opened(Path(manifest), must_exist=must_resume):
        done = directory.summary()
        if done:
            log(f"{directory.path}: complete with {done['steps']} steps; nothing to do")
            synchronise(config, directory)
            return done
        inspection = HeldOutInspection(config, directory, held_out or manifest)
        summary = run_task(task, directory, stop or StopRequest(), inspection)
        log_summary(str(directory.path), summary)
        if summary["steps"] == config.train.steps:
            _log_lesson(directory, summary)
        return summary


def _log_lesson(directory: RunDirectory, summary: dict[str, Any]) -> None:
    """What the masks learned, and where to look next."""
    moving, static = summary["motion_enrichment"], summary["static_enrichment"]
    if moving is not None:
        other = "" if static is None else f", on static distractors {static:.1f} times"
        log(f"visible tokens lie on moving objects {moving:.1f} times as often as by chance{other}")
    log(
        f"look at {directory.pictures}; how good the features are: tats-ray probe "
        f"probe.checkpoint={directory.path}"
    )


def pretraining_task(config: Config, manifest: pa.Table) -> Task:
    """Pre-training on the videos of a manifest."""
    return Task(
        config=config,
        plan=build_plan(config, manifest),
        build_model=partial(build_mae, config.model, config.grid, config.run.seed),
        build_trainer=partial(MAETrainer, config),
        read_state=partial(_read_state, config),
        rollouts=config if config.learns_by_rollouts else None,
    )


def _read_state(config: Config, checkpoint: Path) -> RunState:
    state = read_state(checkpoint)
    if config.learns_by_rollouts and state.policy is None:
        raise CheckpointError(
            f"{checkpoint / 'sampler.safetensors'}: is missing; remove that folder, and the run "
            "continues from the checkpoint before"
        )
    return state
