"""Ray mode against serial mode: the same step functions must give the same numbers."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import ray
import torch

from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config
from tests.iterations import (
    drive,
    drive_serially,
    log_probs,
    pretraining,
    ray_executor,
    starting_point,
)
from tests.processes import workers
from tests.runs.systems import SYSTEMS, TENNIS, overrides, tennis_manifest

pytestmark = pytest.mark.usefixtures("cluster")

STEPS = 6


def _ray(config, synthetic, tmp_path, steps=STEPS, between=None):
    task = pretraining(config, synthetic.train)
    return drive(ray_executor(task, starting_point(tmp_path)), steps, between=between)


def _serial(config, synthetic, steps=STEPS, **kwargs):
    return drive_serially(config, synthetic.train, steps, **kwargs)


def _assert_same(one, two, tolerance=0.0, config=None):
    """Weights; policies through what they say where rounding differs.

    Args: config: of the run, where there is a tolerance.
    """
    for name, value in one.trainer.files["mae"].items():
        assert np.allclose(value, two.trainer.files["mae"][name], rtol=0, atol=tolerance), name
    if tolerance == 0.0 and one.policy is not None:
        for name, value in one.policy.sampler.items():
            assert np.array_equal(value, two.policy.sampler[name]), name
    elif one.policy is not None:
        said = [log_probs(config, state.policy.sampler) for state in (one, two)]
        assert torch.allclose(*said, rtol=0, atol=10 * tolerance)


OWN_ERRORS = ["rl.rewards=training", "masking.sampler.reads=pixels"]
LOCKSTEP = [
    "rl.staleness=0",
    "rl.epochs=2",
    "rl.minibatch_clips=4",
    "data.augment.crop=multi_scale",
]


@pytest.mark.parametrize(
    ("actors", "tolerance"),
    [
        pytest.param(["rl.rollout_workers=1"], 0.0, id="1/1"),
        pytest.param(OWN_ERRORS, 0.0, id="own errors"),
        pytest.param(
            [*OWN_ERRORS, "train.workers=2", "train.accumulate=2", "rl.learners=1"],
            2e-5,
            marks=pytest.mark.slow,
            id="own errors of 2, a remote learner",
        ),
        pytest.param(
            ["rl.rollout_workers=4", "rl.rollout_clips=2"], 0.0, marks=pytest.mark.slow, id="4/1"
        ),
        # Two workers sum their gradients in another order than one.
        pytest.param(
            ["rl.rollout_workers=2", "train.workers=2", "rl.learners=1"],
            2e-5,
            marks=pytest.mark.slow,
            id="2/2 with a remote learner",
        ),
    ],
)
def test_lockstep_equals_serial(synthetic, tmp_path, actors, tolerance):
    config = tiny_config("cluster.mode=local", *LOCKSTEP, *actors)
    reports, states, after = _ray(config, synthetic, tmp_path)
    wanted_reports, wanted_states, wanted_after = _serial(config, synthetic)
    assert sorted(reports) == sorted(wanted_reports) == list(range(1, STEPS + 1))
    assert sorted(states) == [2, STEPS]
    assert after == wanted_after
    for step, metrics in wanted_reports.items():
        assert reports[step]["loss"] == pytest.approx(metrics["loss"], abs=1e-6)
        assert reports[step]["ppo/policy"] == pytest.approx(metrics["ppo/policy"], abs=1e-5)
        assert reports[step]["rollout/staleness"] == 0
    for step in states:
        _assert_same(states[step], wanted_states[step], tolerance, config)


@pytest.mark.slow
@pytest.mark.parametrize("system", [name for name in SYSTEMS if name not in ("random", "frame")])
def test_every_system_is_the_same_on_ray(system, shared_data, tmp_path):
    """On real video; `tube` stands for all systems that look at nothing."""
    config = tiny_config("cluster.mode=local", *overrides(system), *TENNIS)
    manifest = tennis_manifest(shared_data, tmp_path)
    task = pretraining(config, manifest)
    reports, states, _ = drive(ray_executor(task, starting_point(tmp_path)), 3)
    wanted_reports, wanted_states, _ = drive_serially(config, manifest, 3)
    assert sorted(reports) == [1, 2, 3]
    for step, metrics in wanted_reports.items():
        assert reports[step]["loss"] == pytest.approx(metrics["loss"], abs=1e-6)
    for name in ("mae", "auxiliary"):
        got, wanted = (found[3].trainer.files.get(name, {}) for found in (states, wanted_states))
        assert got.keys() == wanted.keys()
        assert all(np.array_equal(value, got[key]) for key, value in wanted.items()), name
    assert (states[3].policy is None) == (system != "tats")


@pytest.mark.slow
def test_overlapped_keeps_the_staleness_bound_and_survives_a_killed_runner(synthetic, tmp_path):
    """The rest of the clips goes past the rollout workers; one of these dies on the way."""
    config = tiny_config(
        "cluster.mode=local", "rl.staleness=2", "rl.rollout_fraction=0.5", "rl.rollout_workers=2",
        "rl.rollout_clips=2",
    )  # fmt: skip
    healthy = []

    def kill(executor, step):
        group = executor.algorithm.env_runner_group
        healthy.append(group.num_healthy_remote_workers())
        if step == 1:
            pids = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
            os.kill(pids[0], signal.SIGKILL)

    reports, states, _ = _ray(config, synthetic, tmp_path, steps=10, between=kill)
    assert sorted(reports) == list(range(1, 11))
    lags = [metrics["rollout/staleness"] for metrics in reports.values()]
    assert max(lags) <= 2
    assert all(np.isfinite(metrics["loss"]) for metrics in reports.values())
    assert states[10].trainer.step == states[10].policy.version == 10
    assert healthy[0] == 2


@pytest.mark.slow
def test_a_run_continues_from_a_state(synthetic, tmp_path):
    config = tiny_config("cluster.mode=local", *LOCKSTEP)
    _, states, cursor = _serial(config, synthetic, steps=3)
    _, wanted, _ = _serial(config, synthetic)
    start = starting_point(tmp_path, states[3], cursor, first=3)
    opening = ray_executor(pretraining(config, synthetic.train), start)
    _, got, _ = drive(opening, STEPS, first=3)
    _assert_same(got[STEPS], wanted[STEPS])


@pytest.mark.slow
def test_nothing_is_left_behind(synthetic, tmp_path):
    """After a closed executor all CPUs are free again, so that the next run can start."""
    config = tiny_config("cluster.mode=local")
    _ray(config, synthetic, tmp_path, steps=1)
    deadline = 200
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"] and deadline:
        deadline -= 1
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]


@pytest.mark.slow
def test_a_killed_train_worker_is_replayed_exactly(synthetic, tmp_path):
    """One of two workers dies; the group comes back from its snapshot and ends bit for bit where
    an undisturbed run ends."""
    config = tiny_config(
        "cluster.mode=local", *LOCKSTEP, "train.workers=2", "train.snapshot_interval=3"
    )
    _, wanted, _ = _ray(config, synthetic, tmp_path / "undisturbed", steps=10)

    def kill(executor, step):
        if step == 4:
            found = workers("RayTrainWorker")
            assert len(found) == 2
            found[0].send_signal(signal.SIGKILL)

    reports, got, _ = _ray(config, synthetic, tmp_path / "killed", steps=10, between=kill)
    assert sorted(reports) == list(range(1, 11))
    _assert_same(got[10], wanted[10])


@pytest.mark.slow
def test_a_train_worker_killed_behind_its_snapshot_leaves_no_gap(synthetic, tmp_path):
    """The restarted group goes on behind the snapshot; what it had not said is not replayed."""
    config = tiny_config("cluster.mode=local", *LOCKSTEP, "train.snapshot_interval=4")
    died = tmp_path / "died"

    class MortalTrainer(MAETrainer):
        def weights(self):  # asked for when the snapshot is stored
            if self.step == 4 and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().weights()

    task = replace(
        pretraining(config, synthetic.train), build_trainer=partial(MortalTrainer, config)
    )
    reports, got, _ = drive(ray_executor(task, starting_point(tmp_path)), STEPS)
    assert died.exists()
    assert list(reports) == list(range(1, STEPS + 1))
    _, wanted, _ = _serial(config, synthetic)
    _assert_same(got[STEPS], wanted[STEPS])


@pytest.mark.slow
def test_a_mistake_in_the_code_of_rollout_workers_ends_the_run_with_its_traceback(
    synthetic, tmp_path
):
    """At once: twenty more attempts would meet the same mistake."""
    config = tiny_config("cluster.mode=local", "rl.rollout_workers=2")

    def spoil(executor, step):
        def roll_out(runner):
            runner.module.log_probs = lambda tokens: tokens.no_such_attribute

        executor.algorithm.env_runner_group.foreach_env_runner(roll_out, local_env_runner=False)

    with pytest.raises(RuntimeError, match="no_such_attribute") as caught:
        _ray(config, synthetic, tmp_path, between=spoil)
    assert "in collect_rollout" in str(caught.value)
