"""A trainer far slower than the decoder: what waits for it is bounded, and nothing spills."""

from __future__ import annotations

import pytest
import ray
from ray._private.internal_api import node_stats

from tats_ray.actors.object_store import (
    ITEMS_AHEAD,
    bytes_in_flight,
    clip_bytes,
    clips_in_flight,
    store_warning,
)
from tats_ray.models.mae import build_mae
from tests.conftest import tiny_config
from tests.iterations import drive, pretraining, ray_executor, starting_point

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("cluster")]

STEPS, WINDOW = 24, 2
# A deep model with small patches on tiny videos; blocks too large to stay outside Ray's store.
SLOW = [
    "cluster.mode=local", "masking.system=tube", "model.patch=4", "model.width=192",
    "model.depth=8", "model.heads=3", "train.batch_size=32",
    "data.block_clips=16", f"data.prefetch_blocks={WINDOW}", "train.snapshot_interval=4",
    "data.stored_height=64", "data.stored_width=64",
]  # fmt: skip


def _store():
    """Bytes in the object store, and bytes that it has ever spilled."""
    (node,) = [found for found in ray.nodes() if found["Alive"]]
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
    return stats.object_store_bytes_used, stats.spilled_bytes_total


def test_memory_is_bounded_and_nothing_spills(synthetic, tmp_path):
    config = tiny_config(*SLOW)
    size, each = config.train.batch_size, clip_bytes(config)
    used, waiting, ahead = [], [], []
    begun, spilled = _store()

    def look(executor, step, done):
        now, spilled_now = _store()
        assert spilled_now == spilled
        used.append(now - begun)
        waiting.append(len(executor.stream._ready))
        ahead.append(step + 1 - done)

    opening = ray_executor(pretraining(config, synthetic.train), starting_point(tmp_path))
    drive(opening, STEPS, between=look)
    # The trainer was the slower side: the driver ran ahead of it as far as it may, and no further.
    assert ITEMS_AHEAD <= max(ahead) <= ITEMS_AHEAD + 1
    assert max(waiting) <= 2 * WINDOW
    model = build_mae(config.model, config.grid, 0)
    parameters = sum(value.numel() for value in model.parameters())
    assert max(used) <= bytes_in_flight(config, parameters)
    assert store_warning(config, parameters, 512 * 2**20) is None
    # All clips of the run would not fit into what clips may take; and clips do lie in the store.
    assert STEPS * size > 2 * clips_in_flight(config)
    assert max(used) > 2 * size * each
