"""A fine-tuning run: its data, its backend, and the evaluation that follows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.controller.evaluate import evaluate_run, synchronise_evaluation
from tats_ray.controller.executor import Backend
from tats_ray.controller.mlflow_link import synchronise
from tats_ray.controller.outputs import RunOutputs
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.controller.signals import StopRequest
from tats_ray.controller.training_run import TrainingRun
from tats_ray.data.appearance import build_labelled_plan
from tats_ray.data.labels import ClipLabels, class_index, classes_of
from tats_ray.data.manifest import read_manifest
from tats_ray.data.synthetic.generate import ensure_synthetic
from tats_ray.errors import TooManyBrokenVideosError
from tats_ray.tracking.console import say, say_summary
from tats_ray.tracking.tracker import Tracker
from tats_ray.training.finetune_state import ClassifierState, build_classifier, read_classifier
from tats_ray.training.finetune_trainer import ClassifierTrainer


class LabelledData(NamedTuple):
    """Training and test set of a run.

    Attributes:
        manifest: the training manifest.
        table: its rows.
        test: the test manifest, or None.
    """

    manifest: str
    table: pa.Table
    classes: list[str]
    labels: ClipLabels
    test: str | None


def finetune(
    config: FinetuneConfig, *, must_resume: bool, stop: StopRequest | None = None
) -> dict[str, Any]:
    """Runs, or continues, the configured run and evaluates its end; returns its summary.

    Raises:
        TatsRayError: a fault for the user, in one line.
        KeyboardInterrupt: asked to stop where there was nothing to finish.
    """
    stop = stop or StopRequest()
    data = read_data(config)
    # Loads the weights that the model starts from, so that a fault shows before workers start.
    ClassifierTrainer(config, data.classes, data.labels, torch.device("cpu"))
    directory = RunDirectory(config)
    directory.open(Path(data.manifest), must_exist=must_resume)
    try:
        summary = directory.summary()
        if summary and ("top1" in summary or data.test is None):
            say(f"{directory.path}: complete with {summary['steps']} steps; nothing to do")
            if data.test is None:
                synchronise(config, directory)
            else:
                synchronise_evaluation(config, directory, Path(data.test).stem, config.train.steps)
            return summary
        if not summary:
            summary = FinetuneRun(config, directory, data, stop).run()
        complete = summary["steps"] == config.train.steps
        if complete and data.test is not None and not stop.is_set:
            summary |= evaluate_run(config, directory.path, data.test)
            summary["mlflow_run_id"] = directory.identity().get("mlflow_run_id")
            directory.write_summary(summary)
        say_summary(str(directory.path), summary)
        return summary
    except TooManyBrokenVideosError as error:
        directory.write_quarantine(directory.quarantine() | error.reasons)
        raise
    finally:
        directory.close()


def read_data(config: FinetuneConfig) -> LabelledData:
    """Reads and checks both manifests; makes the synthetic set where none is given.

    Raises:
        ManifestError: a manifest cannot be read, or its labels do not fit.
    """
    train, test = manifests(config)
    table = read_manifest(train)
    classes = classes_of(train, table)
    if test is not None:
        class_index(test, read_manifest(test), classes)
    rows = class_index(train, table, classes)
    labels = ClipLabels(rows, config.run.seed, config.data.repeats)
    return LabelledData(train, table, classes, labels, test)


def manifests(config: FinetuneConfig) -> tuple[str, str | None]:
    """Training and test manifest; makes the synthetic set where none is given."""
    train, test = config.data.manifest, config.data.test_manifest
    if train is not None:
        return train, test
    made = ensure_synthetic(config.data.synthetic, config.output_dir)
    return str(made.train), test or str(made.held_out)


class FinetuneRun(TrainingRun[ClassifierState]):
    """One process's part of a run: from its last checkpoint to the end, or to a signal."""

    def __init__(
        self,
        config: FinetuneConfig,
        directory: RunDirectory,
        data: LabelledData,
        stop: StopRequest,
    ) -> None:
        plan = build_labelled_plan(config, data.table)
        super().__init__(config, directory, plan, RunOutputs(config, directory), stop)
        self._config = config
        self._data = data

    def read_state(self, checkpoint: Path) -> ClassifierState:
        return read_classifier(checkpoint)

    def build_backend(self) -> Backend[ClassifierState]:
        config, data, quarantined = self._config, self._data, self.directory.quarantine()
        if config.cluster.mode == "serial":
            from tats_ray.controller.finetune_serial import SerialFinetuneBackend

            return SerialFinetuneBackend(config, self.plan, quarantined, data.classes, data.labels)
        from tats_ray.actors.cluster import cluster_resources, connect, preflight, say_store

        connect(config)
        say_store(config, lambda: build_classifier(config, len(data.classes)))
        shares = preflight(config, *cluster_resources())
        from tats_ray.controller.finetune_ray import RayFinetuneBackend

        return RayFinetuneBackend(
            config,
            self.plan,
            quarantined,
            classes=data.classes,
            labels=data.labels,
            shares=shares,
            storage=self.directory.ray_train,
        )

    def summarize(
        self, steps: int, tracker: Tracker, backend: Backend[ClassifierState]
    ) -> dict[str, Any]:
        return self.progress_figures(steps, tracker) | {
            "classes": len(self._data.classes),
            "videos_quarantined": len(backend.quarantined()),
        }
