"""Multi-view evaluation of a classifier on a manifest: in this process or on the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.controller.mlflow_link import synchronise
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.data.labelled_clips import class_index
from tats_ray.data.manifest import read_manifest
from tats_ray.errors import CheckpointError, ManifestError
from tats_ray.evaluation.accuracy import Accuracy, measure_accuracy
from tats_ray.evaluation.multi_view import TestVideo, VideoScorer, score_videos
from tats_ray.models.numerics import default_device
from tats_ray.models.state import State
from tats_ray.storage import writing
from tats_ray.tracking.probe_report import save_confusion
from tats_ray.tracking.tracker import TrackedRun
from tats_ray.training.checkpoint import newest_checkpoint
from tats_ray.training.classifier import read_classifier
from tats_ray.training.pretrained import Pretrained, read_pretrained

_DETAILS = ("classes", "missing", "confusion")  # of an evaluation's file, beside the metrics


def evaluate_run(config: FinetuneConfig, run: Path, manifest: str) -> dict[str, Any]:
    """Evaluates the newest checkpoint of a run and leaves the result in its `evaluation/`; returns
    the metrics in short.

    Raises:
        CheckpointError: the run has no complete checkpoint.
    """
    checkpoint = newest_checkpoint(run)
    state = read_classifier(checkpoint)
    classes, weights = state.documents["classes"], state.files["classifier"]
    accuracy = _evaluate_anywhere(config, run, manifest, classes, weights)
    name, directory = Path(manifest).stem, RunDirectory(config)
    write_accuracy(run / "evaluation", name, accuracy)
    directory.update_identity(mlflow_synchronised=False)
    synchronise_evaluation(config, directory, name, state.step)
    return accuracy.metrics()


def evaluate_weights(
    config: FinetuneConfig, source: Path, manifest: str, classes: Path | None
) -> dict[str, Any]:
    """Evaluates a classifier from elsewhere and leaves the result in the `evaluation/` of
    `<run.output_dir>/<run.name>`; returns the metrics in short.

    Args:
        classes: file with the classes' names, one per line, for weights that do not name them.

    Raises:
        CheckpointError: there is no classifier, or it is not of this configuration.
    """
    given = read_pretrained(source)
    if not given.classifier:
        raise CheckpointError(
            f"{source}: holds no classifier; fine-tune it first (tats-ray finetune "
            f"train.initial_weights={source}), or probe its features (tats-ray probe "
            f"probe.checkpoint={source})"
        )
    names = given.classes or _classes(given, classes)
    folder = config.output_dir / config.run.name
    try:
        accuracy = _evaluate_anywhere(config, folder, manifest, names, given.classifier)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    write_accuracy(folder / "evaluation", Path(manifest).stem, accuracy)
    return accuracy.metrics()


def _classes(given: Pretrained, file: Path | None) -> list[str]:
    """Names of an official classifier's classes: those of a file, or their numbers."""
    bias = given.classifier.get("head.bias")
    count = 0 if bias is None else len(bias)
    if file is None:
        return [str(number) for number in range(count)]
    try:
        names = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{file}: cannot be read ({error})") from None
    if len(names) != count or len(set(names)) != count:
        raise ManifestError(
            f"{file}: must name the {count} classes of {given.origin}, one per line"
        )
    return names


def _evaluate_anywhere(
    config: FinetuneConfig, folder: Path, manifest: str, classes: list[str], weights: State
) -> Accuracy:
    """As `evaluate_classifier`, on a cluster that is connected to first where one is asked for."""
    if config.cluster.mode == "serial":
        return evaluate_classifier(config, manifest, classes, weights)
    from tats_ray.actors.cluster import connect, native_stderr_to

    connect(config)
    with native_stderr_to(folder / "ray_train" / "evaluation.log"):
        return evaluate_classifier(config, manifest, classes, weights)


def synchronise_evaluation(
    config: FinetuneConfig, directory: RunDirectory, name: str, step: int
) -> None:
    """Sends MLflow what it lacks of a run, and of its evaluation on the manifest of this name.

    Args:
        step: steps of the classifier that was evaluated.
    """
    folder = directory.path / "evaluation"

    def hand_over(run: TrackedRun) -> None:
        content = json.loads((folder / f"{name}.json").read_text())
        metrics = {key: value for key, value in content.items() if key not in _DETAILS}
        run.log_result(step, metrics)
        for suffix in ("json", "png"):
            run.log_file(folder / f"{name}.{suffix}", "evaluation")

    synchronise(config, directory, hand_over)


def evaluate_classifier(
    config: FinetuneConfig, manifest: str, classes: list[str], weights: State
) -> Accuracy:
    """Scores every video of a manifest once. Ray modes need a connected cluster.

    Raises:
        ManifestError: it cannot be read, or a label is no class.
        ResourceError: the cluster is too small.
        TooManyBrokenVideosError: no video can be decoded.
    """
    table = read_manifest(manifest)
    labels = class_index(manifest, table, classes)
    videos = [TestVideo(number, row) for number, row in enumerate(table.to_pylist())]
    if config.cluster.mode == "serial":
        torch.set_num_threads(config.cluster.threads)
        scorer = VideoScorer(config, len(classes), weights, default_device())
        scores = score_videos(videos, scorer)
    else:
        from tats_ray.actors.cluster import cluster_resources, preflight
        from tats_ray.actors.evaluation_tasks import score_videos_on_ray
        from tats_ray.actors.placement import check_placement, cluster_nodes

        resources = preflight(config, *cluster_resources())
        check_placement(config, resources, cluster_nodes())
        scores = score_videos_on_ray(config, videos, len(classes), weights, resources)
    return measure_accuracy(scores, videos, labels, classes)


def write_accuracy(folder: Path, name: str, accuracy: Accuracy) -> None:
    """Writes `<name>.json` (metrics, shares per class, missing videos, confusion) and a picture.

    Raises:
        StorageError: the folder cannot be written to.
    """
    content = accuracy.metrics() | {
        "classes": accuracy.per_class,
        "missing": [{"path": path, "reason": reason} for path, reason in accuracy.missing],
        "confusion": accuracy.confusion.tolist(),
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(content))
        title = f"{name}: top-1 {100 * accuracy.top1:.1f} %"
        save_confusion(content, title, folder / f"{name}.png")
