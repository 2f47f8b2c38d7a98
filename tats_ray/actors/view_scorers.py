"""Multi-view testing on a cluster: Ray Data decodes in CPU tasks and scores in a pool of actors."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import ray
import ray.data
import torch

from tats_ray.actors.cluster import Resources
from tats_ray.actors.decode_stream import process_decoder, quiet_ray_data
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import validate_as
from tats_ray.errors import VideoDecodeError
from tats_ray.evaluation.multi_view import (
    TestVideo,
    VideoScore,
    VideoScorer,
    ViewPlan,
    build_view_plan,
)
from tats_ray.models.precision import default_device
from tats_ray.models.state import State

_VIDEOS_PER_TASK = 4


class _ScoreViews:
    """One actor of the pool."""

    def __init__(self, config: dict[str, Any], classes: int, weights: list[Any]) -> None:
        parsed = validate_as(FinetuneConfig, config)
        torch.set_num_threads(parsed.cluster.threads)
        self._scorer = VideoScorer(parsed, classes, ray.get(weights[0]), default_device())
        self._none = np.full(classes, np.nan)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Decoded videos in, a row of probabilities each out; not a number for a missing one."""
        rows = zip(batch["frames"], batch["aspect"], batch["reason"], strict=True)
        scores = [
            self._none if reason else self._scorer.score(frames, float(aspect))
            for frames, aspect, reason in rows
        ]
        return {
            "number": batch["number"],
            "probabilities": np.stack(scores),
            "reason": batch["reason"],
        }


def score_videos_on_ray(
    config: FinetuneConfig,
    videos: list[TestVideo],
    classes: int,
    weights: State,
    resources: Resources,
) -> list[VideoScore]:
    """Scores by `train.workers` actors, in the order of the manifest."""
    quiet_ray_data()
    decode = functools.partial(_decode, plan=build_view_plan(config))
    items = [{"number": v.number, "path": v.path, "aspect": v.aspect} for v in videos]
    tasks = -(-len(items) // _VIDEOS_PER_TASK)
    dataset = (
        ray.data.from_items(items, override_num_blocks=tasks)
        .map_batches(decode, batch_size=None, num_cpus=resources.decode_cpus)
        .map_batches(
            _ScoreViews,
            fn_constructor_args=(config.model_dump(), classes, [ray.put(weights)]),
            batch_size=None,
            concurrency=config.train.workers,
            num_cpus=resources.train_cpus,
            num_gpus=resources.train_gpus or None,
        )
    )
    found = [
        VideoScore(int(row["number"]), None, str(row["reason"]))
        if row["reason"]
        else VideoScore(int(row["number"]), np.asarray(row["probabilities"]))
        for row in dataset.take_all()
    ]
    return sorted(found, key=lambda score: score.number)


def _decode(batch: dict[str, np.ndarray], plan: ViewPlan) -> dict[str, Any]:
    """Videos' views; a broken video keeps its row, empty and with the reason."""
    data, decoder = plan.data, process_decoder()
    shape = (plan.clips, data.frames, data.stored_height, data.stored_width, 3)
    frames, reasons = [], []
    for path in batch["path"]:
        try:
            frames.append(plan.decode(str(path), decoder))
            reasons.append("")
        except VideoDecodeError as error:
            frames.append(np.zeros(shape, dtype=np.uint8))
            reasons.append(error.reason)
    return {
        "number": batch["number"],
        "aspect": batch["aspect"],
        "frames": np.stack(frames),
        "reason": np.array(reasons, dtype=object),
    }
