"""What is timed of Ray; the times are not a matter of tests, but for a cost that is fixed."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tats_ray.actors.ray_cost import (
    FixedCostEnvironment,
    pool_seconds,
    rollout_seconds,
    stream_seconds,
    weights_seconds,
)
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import build_plan
from tests.conftest import tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]


def _plan(config, synthetic) -> tuple:
    manifest: pa.Table = read_manifest(synthetic.train)
    return build_plan(config, manifest)


def test_decoding_is_timed_with_and_without_ray(synthetic):
    config = tiny_config("cluster.mode=local", "data.prefetch_blocks=2")
    plan = _plan(config, synthetic)
    assert pool_seconds(plan, 2, 6) > 0
    assert stream_seconds(plan, config, 6) > 0


def test_weights_are_timed_to_where_they_are_used():
    seconds = weights_seconds(tiny_config("cluster.mode=local"), 3)
    assert len(seconds) == 3 and min(seconds) > 0


def test_rollout_workers_answer_side_by_side(synthetic, tmp_path):
    config = tiny_config(
        "cluster.mode=local", "rl.rollout_workers=3", "rl.rollout_clips=2", "data.prefetch_blocks=2"
    )
    plan = _plan(config, synthetic)
    found = rollout_seconds(config, plan, {1, 3}, 2, tmp_path)
    cost = FixedCostEnvironment.seconds
    assert set(found) == {1, 3}
    assert all(cost <= seconds for times in found.values() for seconds in times)
    assert min(found[3]) < 3 * cost, "not one after the other"
