"""A pre-training run: its data, its backend and its summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tats_ray.config import Config
from tats_ray.controller.executor import Backend
from tats_ray.controller.mlflow_link import synchronise
from tats_ray.controller.outputs import PretrainOutputs
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.controller.signals import StopRequest
from tats_ray.controller.training_run import TrainingRun
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import BlockPlan, build_plan
from tats_ray.data.synthetic.generate import ensure_synthetic
from tats_ray.errors import CheckpointError, TooManyBrokenVideosError, VideoDecodeError
from tats_ray.evaluation.held_out import HeldOut, load_held_out
from tats_ray.models.mae import build_mae
from tats_ray.tracking.console import say, say_summary
from tats_ray.tracking.tracker import Tracker
from tats_ray.training.checkpoint import TrainingState, read_state

HELD_OUT_CLIPS = 64  # clips that enrichment is measured on


def pretrain(
    config: Config, *, must_resume: bool, stop: StopRequest | None = None
) -> dict[str, Any]:
    """Runs, or continues, the configured run; returns its summary.

    Raises:
        TatsRayError: a fault for the user, in one line.
        KeyboardInterrupt: asked to stop where there was nothing to finish.
    """
    stop = stop or StopRequest()
    check_model_files(config)
    manifest, held_out_manifest = _manifests(config)
    plan = build_plan(config, read_manifest(manifest))
    directory = RunDirectory(config)
    directory.open(Path(manifest), must_exist=must_resume)
    try:
        done = directory.summary()
        if done:
            say(f"{directory.path}: complete with {done['steps']} steps; nothing to do")
            synchronise(config, directory)
            return done
        held_out = _held_out(config, held_out_manifest)
        outputs = PretrainOutputs(config, directory, held_out)
        summary = PretrainRun(config, directory, plan, outputs, stop).run()
        say_summary(str(directory.path), summary)
        return summary
    except TooManyBrokenVideosError as error:
        directory.write_quarantine(directory.quarantine() | error.reasons)
        raise
    finally:
        directory.close()


def _held_out(config: Config, manifest: str) -> HeldOut:
    try:
        return load_held_out(config, manifest, HELD_OUT_CLIPS)
    except VideoDecodeError as error:
        raise TooManyBrokenVideosError(
            f"{manifest}: none of the first {HELD_OUT_CLIPS} videos to look at can be decoded; the "
            f"first is {error}; repair the manifest (data.held_out_manifest or data.manifest)"
        ) from None


def check_model_files(config: Config) -> None:
    """Loads the files that the model starts from, so that a fault shows before workers start.

    Raises:
        TatsRayError: names the field or file.
    """
    if config.train.initial_weights or config.model.feature_target.encoder:
        import torch

        from tats_ray.training.trainer import MAETrainer

        MAETrainer(config, torch.device("cpu"))


class PretrainRun(TrainingRun[TrainingState]):
    """One process's part of a run: from its last checkpoint to the end, or to a signal."""

    def __init__(
        self,
        config: Config,
        directory: RunDirectory,
        plan: BlockPlan,
        outputs: PretrainOutputs,
        stop: StopRequest,
    ) -> None:
        super().__init__(config, directory, plan, outputs, stop)
        self._config = config
        self._pictures = outputs

    def read_state(self, checkpoint: Path) -> TrainingState:
        state = read_state(checkpoint)
        if self._config.learns_by_rollouts and state.policy is None:
            raise CheckpointError(
                f"{checkpoint / 'sampler.safetensors'}: is missing; remove that folder, and the "
                "run continues from the checkpoint before"
            )
        return state

    def build_backend(self) -> Backend[TrainingState]:
        return build_backend(self._config, self.plan, self.directory)

    def summarize(
        self, steps: int, tracker: Tracker, backend: Backend[TrainingState]
    ) -> dict[str, Any]:
        learned, chance = self._pictures.enrichment, self._pictures.random_enrichment()
        return self.progress_figures(steps, tracker) | {
            "motion_enrichment": None if learned is None else learned.moving,
            "static_enrichment": None if learned is None else learned.static,
            "motion_enrichment_random": None if chance is None else chance.moving,
            "videos_quarantined": len(backend.quarantined()),
        }


def build_backend(
    config: Config, plan: BlockPlan, directory: RunDirectory
) -> Backend[TrainingState]:
    """The backend of `cluster.mode`. Ray is imported, started and checked for Ray modes only.

    Raises:
        ResourceError: there is no cluster, or it is too small for the configured actors.
    """
    quarantined = directory.quarantine()
    if config.cluster.mode == "serial":
        from tats_ray.controller.serial_backend import SerialBackend

        return SerialBackend(config, plan, quarantined)
    from tats_ray.actors.cluster import cluster_resources, connect, preflight, say_store

    connect(config)
    say_store(config, lambda: build_mae(config.model, config.grid, config.run.seed))
    shares = preflight(config, *cluster_resources())
    from tats_ray.controller.ray_backend import RayBackend

    return RayBackend(config, plan, quarantined, shares=shares, storage=directory.ray_train)


def _manifests(config: Config) -> tuple[str, str]:
    """Training and held-out manifests; makes the synthetic set where none is given."""
    data = config.data
    if data.manifest is not None:
        return data.manifest, data.held_out_manifest or data.manifest
    made = ensure_synthetic(data.synthetic, config.output_dir)
    return str(made.train), data.held_out_manifest or str(made.held_out)
