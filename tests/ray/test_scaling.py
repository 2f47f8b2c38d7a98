"""The number of rollout workers changes while a run is at work, and nothing else does."""

from __future__ import annotations

import time

import numpy as np
import pytest
import ray

from tats_ray.actors.requests import ask_for_workers
from tests.conftest import tiny_config
from tests.iterations import drive, drive_serially, pretraining, ray_executor, starting_point

pytestmark = pytest.mark.usefixtures("cluster")

STEPS = 8
LOCKSTEP = ["rl.staleness=0", "rl.rollout_clips=2", "data.augment.crop=multi_scale"]


def _wait_for(executor, workers):
    """New workers answer after seconds; tiny steps would be over."""
    deadline = time.monotonic() + 120
    group = executor.algorithm.env_runner_group
    while group.num_healthy_remote_workers() != workers:
        assert time.monotonic() < deadline, f"{group.num_healthy_remote_workers()} workers"
        executor.algorithm.restore_env_runners(group)


def test_a_run_that_is_scaled_equals_an_undisturbed_one(synthetic, tmp_path):
    config = tiny_config("cluster.mode=local", *LOCKSTEP)
    alive = []

    def scale(executor, step):
        group = executor.algorithm.env_runner_group
        alive.append(group.num_remote_workers())
        if step == 1:
            ask_for_workers(tmp_path / "train", tmp_path, 4)
        if step == 2:  # has followed
            _wait_for(executor, 4)
        if step == 4:
            executor.workers.hub.ask_for_workers(2)

    task = pretraining(config, synthetic.train)
    opening = ray_executor(task, starting_point(tmp_path))
    reports, states, after = drive(opening, STEPS, between=scale)
    _, wanted, wanted_after = drive_serially(config, synthetic.train, STEPS)
    assert after == wanted_after
    assert alive == [1, 1, 4, 4, 4, 2, 2, 2]
    assert [reports[step]["rollout/workers"] for step in (1, 4, 5, 7)] == [1, 4, 4, 2]
    assert sum(report["rollout/failures"] for report in reports.values()) == 0
    for name in ("mae",):
        got, expected = states[STEPS].trainer.files[name], wanted[STEPS].trainer.files[name]
        assert all(np.array_equal(value, got[key]) for key, value in expected.items())
    policy = wanted[STEPS].policy.sampler
    assert all(np.array_equal(v, states[STEPS].policy.sampler[k]) for k, v in policy.items())
    assert not (tmp_path / "train" / "cluster.json").exists(), "requests end with the run"


def test_workers_that_end_give_their_cpus_back(synthetic, tmp_path):
    config = tiny_config("cluster.mode=local", *LOCKSTEP, "rl.rollout_workers=3")
    free = []

    def scale(executor, step):
        if step == 1:
            free.append(ray.available_resources()["CPU"])
            executor.workers.hub.ask_for_workers(1)
        if step == 2:
            deadline = time.monotonic() + 30
            while ray.available_resources()["CPU"] < free[0] + 2 * 0.5:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    task = pretraining(config, synthetic.train)
    drive(ray_executor(task, starting_point(tmp_path)), 4, between=scale)
