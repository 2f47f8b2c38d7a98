"""How much a Ray run holds in the object store at once, and whether the store is large enough.

Ray would write what does not fit to a disk and read it back, at every step and without an error.
"""

from __future__ import annotations

import math

from tats_ray.config.job import JobConfig

# Fixed masks and warm-up steps need no autoencoder; this bounds how far the driver runs ahead.
ITEMS_AHEAD = 4

_USABLE = 0.8  # share of the store above which Ray begins to spill
# Copies of the weights: the published ones, those before them and the call that brings the next;
# the same for the snapshot, which is three times as large, with a little time until one is freed.
# The most that was seen is 14 (tests/faults/test_slow_trainer.py).
_COPIES = 16
_WINDOWS = 2  # of `data.prefetch_blocks`: one that is used up, one that is being decoded


def clips_in_flight(config: JobConfig) -> int:
    """Decoded clips that are alive at most: steps that a snapshot has not passed, steps that have
    been submitted, the one that is being put together, and blocks that wait for it."""
    train, data = config.train, config.data
    steps = train.snapshot_interval + ITEMS_AHEAD + 1
    waiting = (_WINDOWS * data.prefetch_blocks + 1) * data.block_clips
    return steps * train.batch_size + waiting


def clip_bytes(config: JobConfig) -> int:
    """Bytes of one decoded clip."""
    data = config.data
    return data.frames * data.stored_height * data.stored_width * 3


def bytes_in_flight(config: JobConfig, parameters: int) -> int:
    """Bytes of clips and of weights; `parameters` are the model's, of four bytes each."""
    return clips_in_flight(config) * clip_bytes(config) + _COPIES * 4 * parameters


def store_warning(config: JobConfig, parameters: int, store_bytes: float) -> str | None:
    """One line where the run may not fit; None where it does.

    Args:
        store_bytes: of the object stores of all nodes.
    """
    needed = bytes_in_flight(config, parameters) / _USABLE
    if needed <= store_bytes:
        return None
    local = config.cluster.mode == "local"
    remedy = f"cluster.object_store_mb={math.ceil(needed / 2**20)}" if local else "larger stores"
    return (
        f"up to {clips_in_flight(config)} decoded clips of {clip_bytes(config) / 2**20:.2f} MiB "
        f"and {_COPIES} copies of {parameters / 1e6:.1f} M weights are in flight, and the object "
        f"store of {int(store_bytes) >> 20} MiB may spill them to disk: use {remedy}, a smaller "
        f"train.snapshot_interval (now {config.train.snapshot_interval}) or data.prefetch_blocks "
        f"(now {config.data.prefetch_blocks})"
    )
