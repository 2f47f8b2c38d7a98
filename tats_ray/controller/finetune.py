"""Fine-tuning: its task, its data, its run, and the evaluation that follows it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.controller.evaluate import evaluate_run, synchronise_evaluation
from tats_ray.controller.executor import Task
from tats_ray.controller.mlflow_link import synchronise
from tats_ray.controller.run import manifests, run_task
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.controller.signals import StopRequest
from tats_ray.data.labelled_clips import ClipLabels, build_labelled_plan, class_index, classes_of
from tats_ray.data.manifest import read_manifest
from tats_ray.tracking.console import log, log_summary
from tats_ray.training.checkpoint import RunState
from tats_ray.training.classifier import ClassifierTrainer, build_classifier, read_classifier


class LabelledData(NamedTuple):
    """Training manifest of a run, its rows and their classes; and the test manifest, if any."""

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
    config = config.for_videos(data.table.num_rows)
    # Loads the weights that the model starts from, so that a fault shows before workers start.
    ClassifierTrainer(config, data.classes, data.labels, torch.device("cpu"))
    directory = RunDirectory(config)
    with directory.opened(Path(data.manifest), must_exist=must_resume):
        summary = directory.summary()
        if summary and ("top1" in summary or data.test is None):
            log(f"{directory.path}: complete with {summary['steps']} steps; nothing to do")
            if data.test is None:
                synchronise(config, directory)
            else:
                synchronise_evaluation(config, directory, Path(data.test).stem, config.train.steps)
            return summary
        if not summary:
            summary = run_task(finetuning_task(config, data), directory, stop)
        complete = summary["steps"] == config.train.steps
        if complete and data.test is not None and not stop.is_set:
            summary |= evaluate_run(config, directory.path, data.test)
            summary["mlflow_run_id"] = directory.identity().get("mlflow_run_id")
            directory.write_summary(summary)
        log_summary(str(directory.path), summary)
        return summary


def read_data(config: FinetuneConfig) -> LabelledData:
    """Reads and checks both manifests; makes the synthetic set where none is given.

    Raises:
        ManifestError: a manifest cannot be read, or its labels do not fit.
    """
    train, test = manifests(config, config.data.test_manifest)
    table = read_manifest(train)
    classes = classes_of(train, table)
    if test is not None:
        class_index(test, read_manifest(test), classes)
    rows = class_index(train, table, classes)
    labels = ClipLabels(rows, config.run.seed, config.data.repeats)
    return LabelledData(train, table, classes, labels, test)


def finetuning_task(config: FinetuneConfig, data: LabelledData) -> Task:
    """Fine-tuning on labelled videos; it has no rollouts."""
    return Task(
        config=config,
        plan=build_labelled_plan(config, data.table),
        build_model=partial(build_classifier, config, len(data.classes)),
        build_trainer=partial(ClassifierTrainer, config, data.classes, data.labels),
        read_state=lambda checkpoint: RunState(read_classifier(checkpoint), None),
        facts={"classes": len(data.classes)},
    )
