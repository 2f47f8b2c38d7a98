"""The number of rollout workers that a load settles at."""

from __future__ import annotations

import numpy as np
import pytest

from tats_ray.config import load_config
from tats_ray.errors import ConfigError
from tats_ray.rl.worker_scaling import WorkerScaler


def _numbers(least, most, work, training, iterations=400, noise=0.0, capacity=None):
    """Workers after each iteration of a run whose rollouts share `work` seconds and overlap with
    `training` seconds; `capacity` of them find room."""
    scaler, random = WorkerScaler(least, most), np.random.default_rng(0)
    workers, found = least, []
    for _ in range(iterations):
        at_work = min(workers, capacity or most)
        rolled_out = work / at_work * (1 + noise * random.uniform(-1, 1))
        waited = max(0.0, training * (1 + noise * random.uniform(-1, 1)) - rolled_out)
        wanted = scaler.decide(at_work, waited, rolled_out)
        workers = wanted if at_work == workers else workers
        found.append(workers)
    return found


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("work", [0.3, 3.0, 8.0, 20.0])
def test_rollouts_come_to_take_as_long_as_training(work, noise):
    found = _numbers(1, 32, work, training=1.0, noise=noise)
    settled = found[-1]
    assert work / settled <= 1.1, "training does not wait"
    assert settled == 1 or work / (settled - 1) > 0.6, "few workers stand by"
    assert len(set(found[200:])) <= 2, "the number does not swing"


def test_bounds_hold():
    assert set(_numbers(2, 5, 100.0, 1.0)) == {2, 3, 5}
    assert set(_numbers(2, 5, 0.001, 1.0)) == {2}


def test_a_lighter_load_gives_workers_back():
    scaler, workers = WorkerScaler(1, 8), 8
    for _ in range(200):
        workers = scaler.decide(workers, 1.0, 0.4 / workers)
    assert workers == 1


def test_a_decision_rests_on_ten_iterations_at_that_number():
    scaler = WorkerScaler(1, 8)
    assert [scaler.decide(1, 0.0, 1.0) for _ in range(9)] == [1] * 9
    assert scaler.decide(1, 0.0, 1.0) == 2
    assert [scaler.decide(2, 0.0, 1.0) for _ in range(5)] == [2] * 5
    assert [scaler.decide(1, 0.0, 1.0) for _ in range(9)] == [1] * 9, "one was lost: seen anew"


def test_workers_that_find_no_room_are_not_asked_for_again():
    assert max(_numbers(1, 32, 100.0, 1.0, capacity=4)) == 5


def test_bounds_are_checked(tmp_path):
    bounds = ["rl.rollout_workers={min: 2, max: 6}", "rl.rewards=workers"]
    config = load_config(None, ["run.name=x", *bounds])
    assert (config.rl.rollout_workers.min, config.rollout_workers) == (2, 2)
    with pytest.raises(ConfigError, match=r"^rl\.rollout_workers: min=3 is more than max=2$"):
        load_config(None, ["run.name=x", "rl.rollout_workers={min: 3, max: 2}"])
    with pytest.raises(ConfigError, match=r"^rl\.rollout_workers\.max: is required"):
        load_config(None, ["run.name=x", "rl.rollout_workers={min: 3}"])
    with pytest.raises(ConfigError, match=r"^rl\.rollout_workers: input should be greater"):
        load_config(None, ["run.name=x", "rl.rollout_workers=0"])
