"""Evaluation on a cluster: Ray Data tasks decode and encode videos for features; for views they
decode, and a pool of actors scores."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.exceptions import RayError

from tats_ray.actors.cluster import Resources
from tats_ray.actors.decode_stream import process_decoder, quiet_ray_data
from tats_ray.actors.placement import task_options
from tats_ray.actors.ray_compat import own_error
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import validate_as
from tats_ray.errors import ComponentFailedError, ComponentTimeoutError, VideoDecodeError
from tats_ray.evaluation.features import (
    BlockFeatures,
    ExtractionPlan,
    FrozenEncoder,
    extract_block,
)
from tats_ray.evaluation.multi_view import (
    TestVideo,
    VideoScore,
    VideoScorer,
    decode_views,
)
from tats_ray.models.numerics import default_device
from tats_ray.models.state import State

Columns = dict[str, np.ndarray]


def extract_with_ray(
    plan: ExtractionPlan, *, cpus: float, gpus: float, wait_seconds: float
) -> Iterator[BlockFeatures]:
    """All blocks, as their tasks finish.

    Args:
        cpus, gpus: share of each task; with a share of a GPU it encodes there.
        wait_seconds: time limit of the wait for a block.

    Raises:
        ComponentTimeoutError: no block came in time.
        ComponentFailedError: a task ended with an error that no video caused.
    """
    quiet_ray_data()
    plan_ref = ray.put(plan)
    extract = functools.partial(
        _extract_task, plan_ref=[plan_ref], device="cuda" if gpus else "cpu"
    )
    # from_items makes its blocks in the driver; other sources start tasks of their own.
    numbers = list(range(plan.blocks))
    dataset = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
        extract, batch_size=None, num_cpus=cpus, num_gpus=gpus or None, zero_copy_batch=True
    )
    batches = dataset.iter_batches(batch_size=None, batch_format="numpy")
    for columns in _within(batches, wait_seconds):
        yield BlockFeatures(columns["row"], columns["features"], columns["reason"].tolist())


def _extract_task(numbers: Columns, plan_ref: list[Any], device: str) -> Columns:
    plan: ExtractionPlan = ray.get(plan_ref[0])
    encoder = _process_encoder(plan_ref[0], device)
    found = extract_block(plan, int(numbers["item"][0]), encoder, process_decoder())
    return {
        "row": found.rows,
        "features": found.features,
        "reason": np.array(found.reasons, dtype=object),
    }


@functools.lru_cache(maxsize=1)
def _process_encoder(plan_ref: Any, device: str) -> FrozenEncoder:
    """One encoder per Ray worker process, kept between tasks."""
    return FrozenEncoder(ray.get(plan_ref), torch.device(device))


def _within(batches: Iterable[Columns], seconds: float) -> Iterator[Columns]:
    """Passes batches on, and looks at the clock while it waits for the next one."""
    ready: Queue[Columns | BaseException | None] = Queue()

    def fill() -> None:
        try:
            for columns in batches:
                ready.put(columns)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=fill, name="features", daemon=True).start()
    while True:
        try:
            came = ready.get(timeout=seconds)
        except Empty:
            raise ComponentTimeoutError(
                f"no features came within {seconds:g} s (cluster.wait_seconds); tasks may find no "
                "free CPU, or a block of data.block_clips clips takes longer"
            ) from None
        if came is None:
            return
        if isinstance(came, BaseException):
            found = own_error(came)
            if not isinstance(found, RayError):
                raise found
            raise ComponentFailedError(f"extracting features failed: {_reason(found)}") from None
        yield came


def _reason(error: RayError) -> str:
    """The line of a traceback that names the error; Ray Data writes advice behind it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    named = [line for line in lines if re.match(r"[\w.]+(?<!UserCode)(Error|Exception)\b", line)]
    return (named or lines)[-1]


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
    decode = functools.partial(_decode, config=config)
    items = [{"number": v.number, "row": dict(v.row), "aspect": v.aspect} for v in videos]
    tasks = -(-len(items) // _VIDEOS_PER_TASK)
    dataset = (
        ray.data.from_items(items, override_num_blocks=tasks)
        .map_batches(
            decode,
            batch_size=None,
            num_cpus=resources.decode_cpus,
            **task_options(config.cluster.placement.decode),
        )
        .map_batches(
            _ScoreViews,
            fn_constructor_args=(config.model_dump(), classes, [ray.put(weights)]),
            batch_size=None,
            concurrency=config.train.workers,
            num_cpus=resources.train_cpus,
            num_gpus=resources.train_gpus or None,
            **task_options(config.cluster.placement.train),
        )
    )
    found = [
        VideoScore(int(row["number"]), None, str(row["reason"]))
        if row["reason"]
        else VideoScore(int(row["number"]), np.asarray(row["probabilities"]))
        for row in dataset.take_all()
    ]
    return sorted(found, key=lambda score: score.number)


def _decode(batch: dict[str, np.ndarray], config: FinetuneConfig) -> dict[str, Any]:
    """Videos' views; a broken video keeps its row, empty and with the reason."""
    data, decoder = config.data, process_decoder()
    shape = (config.views.temporal, data.frames, data.stored_height, data.stored_width, 3)
    frames, reasons = [], []
    for row in batch["row"]:
        try:
            frames.append(decode_views(config, row, decoder))
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
