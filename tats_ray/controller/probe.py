"""Frozen-feature evaluation of pre-trained weights: features, classifiers, report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tats_ray.config import dump_config
from tats_ray.config.probe import ProbeConfig, ProbeSettings
from tats_ray.controller.run_directory import read_json
from tats_ray.data.labelled_clips import class_index, classes_of
from tats_ray.data.manifest import read_manifest
from tats_ray.errors import CheckpointError, ResourceError
from tats_ray.evaluation.feature_cache import feature_key, read_features, write_features
from tats_ray.evaluation.features import (
    BlockFeatures,
    ExtractionPlan,
    VideoFeatures,
    extract_serially,
    gather,
)
from tats_ray.evaluation.probe import LabelledVideos, evaluate
from tats_ray.evaluation.splits import Split, fold_splits, held_out_split, places_of, read_folds
from tats_ray.models.numerics import default_device
from tats_ray.models.state import State
from tats_ray.storage import writing
from tats_ray.tracking.console import log
from tats_ray.tracking.mlflow_run import MLflowRun
from tats_ray.tracking.probe_report import log_probe, save_confusion
from tats_ray.training.pretrained import read_pretrained

_TASKS_PER_GPU = 8  # each holds a model and a CUDA context of its own


@dataclass(frozen=True)
class ProbeData:
    """Manifests and what follows from them; `labels` and `groups` are those of all rows in turn."""

    manifests: list[tuple[str, pa.Table]]  # file and rows: training, then testing
    classes: list[str]
    labels: np.ndarray
    groups: list[str]
    splits: list[Split]


def probe(config: ProbeConfig) -> dict[str, Any]:
    """Extracts what is not cached, fits and scores the classifiers; writes the report and returns
    it, as `probe.json` has it."""
    torch.set_num_threads(config.run.cluster.threads)
    source = Path(config.probe.checkpoint).absolute()
    given = read_pretrained(source)
    normalized = any(name.startswith("encoder.norm.") for name in given.encoder)
    if config.probe.layer is None and not normalized:
        raise CheckpointError(
            f"probe.checkpoint: {source}: its encoder has no last norm, as behind fine-tuning; set "
            f"probe.layer={config.run.model.depth}"
        )
    data = read_probe_data(config.probe)
    try:
        found = [_features(config, given.encoder, name, table) for name, table in data.manifests]
    except CheckpointError as error:
        raise CheckpointError(f"probe.checkpoint: {given.origin}: {error}") from None
    missing = {path: reason for part in found for path, reason in part.missing.items()}
    paths = [path for _, table in data.manifests for path in table["path"].to_pylist()]
    videos = LabelledVideos(
        features=np.concatenate([part.features for part in found]),
        labels=data.labels,
        classes=data.classes,
        groups=data.groups,
        readable=np.array([path not in missing for path in paths]),
    )
    report = {
        "checkpoint": str(given.origin),
        "step": given.step,
        "settings": config.probe.model_dump(),
        "videos": {name: table.num_rows for name, table in data.manifests},
        "missing_videos": len(missing),
        "missing": missing,
        "results": evaluate(config.probe, videos, data.splits, default_device()),
    }
    _publish(config, report)
    return report


def read_probe_data(settings: ProbeSettings) -> ProbeData:
    """Manifests, labels and splits.

    Raises:
        ManifestError: a file cannot be read, or a label or a fold is missing.
        LeakError: a video or a group would be trained on and tested on.
    """
    names = [settings.train] if settings.test is None else [settings.train, settings.test]
    manifests = [(name, read_manifest(name)) for name in names]
    classes = classes_of(*manifests[0])
    labels = [class_index(name, table, classes) for name, table in manifests]
    paths = [table["path"].to_pylist() for _, table in manifests]
    groups, splits = paths, []
    if settings.folds is not None:
        file = Path(settings.folds)
        folds = read_folds(file)
        places = [places_of(part, folds, file) for part in paths]
        groups = [[place.group for place in part] for part in places]
        splits = fold_splits(places[0]) if settings.test is None else []
    if settings.test is not None:
        splits = [held_out_split(paths[0], paths[1], groups[0], groups[1])]
    everyone = [group for part in groups for group in part]
    return ProbeData(manifests, classes, np.concatenate(labels), everyone, splits)


def _features(config: ProbeConfig, weights: State, name: str, manifest: pa.Table) -> VideoFeatures:
    """A manifest's features, from the run's cache where they are."""
    run, settings = config.run, config.probe
    plan = ExtractionPlan(
        data=run.data,
        model=run.model,
        grid=run.grid,
        weights=weights,
        views=settings.views,
        layer=settings.layer,
        pool=settings.pool,
        change=settings.change,
        manifest=manifest,
    )
    folder, key = config.directory / "features", feature_key(plan)
    with writing(folder):  # before hours of work go into what belongs there
        folder.mkdir(parents=True, exist_ok=True)
    found = read_features(folder, key, manifest.num_rows)
    if found is None:
        log(f"{name}: extracting features of {manifest.num_rows} videos")
        found = gather(plan, _extract(config, plan))
        write_features(folder, key, found)
    else:
        log(f"{name}: features of {manifest.num_rows} videos are there from an earlier call")
    if found.missing:
        path, reason = next(iter(found.missing.items()))
        log(f"{name}: {len(found.missing)} videos are missing; the first: {path}: {reason}")
    return found


def _extract(config: ProbeConfig, plan: ExtractionPlan) -> Iterator[BlockFeatures]:
    """Blocks of features, from this process or from a cluster.

    Raises:
        ResourceError: there is no cluster, or it is too small for one task.
    """
    cluster = config.run.cluster
    if cluster.mode == "serial":
        return extract_serially(plan, default_device())
    from tats_ray.actors.cluster import cluster_resources, start_ray

    # A task computes on so many cores, whatever little decoding alone would take.
    share = max(cluster.decode_cpus, float(cluster.threads))
    start_ray(cluster, share)
    cpus, gpus = cluster_resources()
    if share > cpus:
        raise ResourceError(
            f"the cluster has {cpus:g} CPUs, a task that extracts features needs {share:g}; lower "
            "cluster.threads or cluster.decode_cpus"
        )
    gpu_share = max(gpus / (cpus // share), 1 / _TASKS_PER_GPU) if gpus else 0.0
    from tats_ray.actors.evaluation_tasks import extract_with_ray

    return extract_with_ray(
        plan, cpus=share, gpus=min(gpu_share, 1.0), wait_seconds=cluster.wait_seconds
    )


def _publish(config: ProbeConfig, report: dict[str, Any]) -> None:
    """Writes `<run>/probes/<name>`, shows the metrics and logs them to an MLflow run below that of
    the pre-training."""
    folder = config.directory / "probes" / config.probe.name
    title = f"{config.run.run.name} after step {report['step']}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("confusion_*.png"):  # of an earlier call with other methods
            old.unlink()
        (folder / "config.yaml").write_text(dump_config(config.resolved))
        (folder / "probe.json").write_text(json.dumps(report, indent=2))
        for method, result in report["results"].items():
            save_confusion(result, f"{title}, {method}", folder / f"confusion_{method}.png")
    log(f"{title}: {folder}")
    log_probe(report["results"])
    if not config.run.tracking.mlflow:
        return
    parent = read_json(config.directory / "run.json").get("mlflow_run_id")
    tracked = MLflowRun(config.resolved.below(parent))
    metrics = {
        f"{method}_{name}": value
        for method, result in report["results"].items()
        for name, value in result.items()
        if isinstance(value, float)
    }
    tracked.log_result(report["step"], metrics)
    for file in sorted(folder.iterdir()):
        tracked.log_file(file, "probe")
    tracked.finish("FINISHED")
