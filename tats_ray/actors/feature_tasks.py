"""Features of videos on a cluster: Ray Data tasks decode and encode, only features travel."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.exceptions import RayError

from tats_ray.actors.decode_stream import process_decoder, quiet_ray_data
from tats_ray.errors import ComponentFailedError, ComponentTimeoutError
from tats_ray.evaluation.features import (
    BlockFeatures,
    ExtractionPlan,
    FrozenEncoder,
    extract_block,
)

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
        if isinstance(came, RayError):
            reason = str(came).strip().splitlines()[-1]
            raise ComponentFailedError(f"extracting features failed: {reason}") from None
        if isinstance(came, BaseException):
            raise came
        yield came
