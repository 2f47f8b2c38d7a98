"""PPO learner, hub and decode workers that are killed on the way."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tats_ray.errors import ComponentFailedError
from tats_ray.tracking.metrics_file import read_records
from tests.iterations import drive_on_ray
from tests.processes import LOOPBACK, listening, wait_for, workers
from tests.runs.command import Run

pytestmark = pytest.mark.faults

STEPS = 24
LEARNER = "_WrappedExecutable"  # RLlib's name for a remote learner


@pytest.mark.usefixtures("cluster")
def test_a_lost_learner_goes_on_from_the_state_that_was_kept(synthetic, tmp_path):
    seen, addresses = [], set()

    def between(executor, step):
        seen.append(executor.algorithm.policy.version)
        if step in (7, 15):
            (learner,) = workers(LEARNER)
            learner.kill()
        elif step in (8, 16):  # it was started anew
            addresses.update(listening(os.getpid()))

    reports, states, _ = drive_on_ray(
        synthetic, tmp_path, STEPS, "rl.learners=1", "train.snapshot_interval=5", between=between
    )
    assert len(addresses) > 3, "Ray was running"
    assert {ip for _, ip in addresses} <= LOOPBACK, addresses
    assert seen == list(range(1, STEPS + 1)), "versions only grow"
    assert reports[STEPS]["ppo/restarts"] == 2
    # Kept after updates 5 and 15; lost after 8 and 16.
    assert reports[STEPS]["ppo/lost_updates"] == (8 - 5) + (16 - 15)
    assert max(metrics["rollout/staleness"] for metrics in reports.values()) <= 1
    assert all(np.isfinite(metrics["ppo/total"]) for metrics in reports.values())
    policy = states[STEPS].policy
    assert policy.version == STEPS
    assert all(np.isfinite(value).all() for value in policy.sampler.values())


@pytest.mark.usefixtures("cluster")
def test_a_learner_that_is_lost_too_often_ends_the_run_with_the_cause(synthetic, tmp_path):
    def between(executor, step):
        if step > 2:
            workers(LEARNER)[0].kill()

    with pytest.raises(ComponentFailedError, match=r"learner was lost after .*=1 restarts: .*died"):
        drive_on_ray(
            synthetic, tmp_path, STEPS, "rl.learners=1", "train.max_failures=1", between=between
        )


@pytest.mark.usefixtures("cluster")
def test_killed_decode_workers_change_nothing(synthetic, tmp_path):
    killed = []

    def between(executor, step):
        if step % 4 == 1:
            for process in workers("MapBatches"):
                process.kill()
                killed.append(process.pid)

    lockstep = ["rl.staleness=0", "data.prefetch_blocks=2"]
    _, wanted, cursor = drive_on_ray(synthetic, tmp_path / "undisturbed", STEPS, *lockstep)
    _, got, after = drive_on_ray(synthetic, tmp_path / "killed", STEPS, *lockstep, between=between)
    assert killed
    assert after == cursor
    for name, value in wanted[STEPS].trainer.files["mae"].items():
        assert np.array_equal(got[STEPS].trainer.files["mae"][name], value), name


def test_a_killed_hub_costs_the_steps_behind_the_last_checkpoint(synthetic, tmp_path):
    run = Run(
        synthetic, tmp_path, "hub", "cluster.mode=local", "cluster.object_store_mb=200",
        "train.steps=400", "checkpoint.interval=20",
    )  # fmt: skip
    process = run.start()
    run.wait_for("checkpoints/step_00000020/progress.json", process)
    (hub,) = wait_for(lambda: workers("Hub", process.pid), "hub")
    hub.kill()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "the hub died; continuing from a checkpoint, restart 1 of 3" in output
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["steps"] == 400
    assert summary["resumed_from"] >= 20
    records = read_records(run.path / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(2, 401, 2))
    assert max(record["rollout/staleness"] for record in records) <= 1
