"""Ray mode against serial mode: the same step functions must give the same numbers."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import psutil
import pytest
import ray
import torch

from tats_ray.config import Config
from tats_ray.config.shares import Shares
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import BlockPlan, build_plan
from tats_ray.models.sampler import build_sampler
from tats_ray.models.state import load_model_state
from tats_ray.runtime.ray_backend import RayBackend
from tats_ray.runtime.serial_backend import SerialBackend
from tests.conftest import tiny_config
from tests.rounds import drive
from tests.runs.systems import SYSTEMS, TENNIS, overrides, quick_only, tennis_manifest

pytestmark = pytest.mark.usefixtures("cluster")

STEPS = 6
SHARES = Shares(0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5)


def _plan(config: Config, synthetic) -> BlockPlan:
    return build_plan(config, read_manifest(synthetic.train))


def _ray(config, synthetic, tmp_path, steps=STEPS, **kwargs):
    plan = _plan(config, synthetic)
    backend = RayBackend(config, plan, {}, shares=SHARES, storage=tmp_path / "train")
    return drive(backend, config, steps, **kwargs)


def _serial(config, synthetic, steps=STEPS, **kwargs):
    return drive(SerialBackend(config, _plan(config, synthetic), {}), config, steps, **kwargs)


def _assert_same(one, two, tolerance=0.0):
    """Weights; policies through what they say, since some weights cancel in the softmax and only
    collect rounding."""
    for name, value in one.train.mae.items():
        assert np.allclose(value, two.train.mae[name], rtol=0, atol=tolerance), name
    if tolerance == 0.0 and one.policy is not None:
        for name, value in one.policy.sampler.items():
            assert np.array_equal(value, two.policy.sampler[name]), name
    elif one.policy is not None:
        said = [_log_probs(state.policy.sampler) for state in (one, two)]
        assert torch.allclose(*said, rtol=0, atol=10 * tolerance)


def _log_probs(weights):
    config = tiny_config()
    sampler = build_sampler(config.masking.sampler, config.model.width, config.grid, 0)
    load_model_state(sampler, weights)
    generator = torch.Generator().manual_seed(0)
    return sampler.log_probs(torch.randn(8, config.grid.tokens, 24, generator=generator))


LOCKSTEP = [
    "rl.staleness=0",
    "rl.epochs=2",
    "rl.minibatch_clips=4",
    "data.augment.crop=multi_scale",
]


@pytest.mark.parametrize(
    ("actors", "tolerance"),
    [
        (["rl.env_runners=1", "train.workers=1"], 0.0),
        (["rl.env_runners=4", "train.workers=1", "rl.rollout_clips=2"], 0.0),
        # Two workers sum their gradients in another order than one.
        (["rl.env_runners=2", "train.workers=2", "rl.learners=1"], 2e-5),
    ],
    ids=["1/1", "4/1", "2/2 with a remote learner"],
)
def test_lockstep_equals_serial(synthetic, tmp_path, actors, tolerance):
    config = tiny_config("cluster.mode=local", *LOCKSTEP, *actors)
    reports, states, after = _ray(config, synthetic, tmp_path)
    wanted_reports, wanted_states, wanted_after = _serial(config, synthetic)
    assert sorted(reports) == sorted(wanted_reports) == list(range(1, STEPS + 1))
    assert sorted(states) == [2, STEPS]
    assert after == wanted_after
    for step, figures in wanted_reports.items():
        assert reports[step]["loss"] == pytest.approx(figures["loss"], abs=1e-6)
        assert reports[step]["ppo/policy"] == pytest.approx(figures["ppo/policy"], abs=1e-5)
        assert reports[step]["rollout/mae_lag"] == 0
    for step in states:
        _assert_same(states[step], wanted_states[step], tolerance)


@pytest.mark.parametrize("system", quick_only("adamae", "trackmae"))
def test_every_system_is_the_same_on_ray(system, synthetic, tmp_path):
    config = tiny_config("cluster.mode=local", "data.augment.crop=multi_scale", *overrides(system))
    reports, states, _ = _ray(config, synthetic, tmp_path, steps=3)
    wanted_reports, wanted_states, _ = _serial(config, synthetic, steps=3)
    for step, figures in wanted_reports.items():
        assert reports[step]["loss"] == pytest.approx(figures["loss"], abs=1e-6)
    for name in ("mae", "heads"):
        got, wanted = (getattr(found[3].train, name) for found in (states, wanted_states))
        assert got.keys() == wanted.keys()
        assert all(np.array_equal(value, got[key]) for key, value in wanted.items()), name


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_takes_real_video_on_ray(system, shared_data, tmp_path):
    config = tiny_config("cluster.mode=local", *overrides(system), *TENNIS)
    plan = build_plan(config, read_manifest(tennis_manifest(shared_data, tmp_path)))
    backend = RayBackend(config, plan, {}, shares=SHARES, storage=tmp_path / "train")
    reports, states, _ = drive(backend, config, 4)
    assert sorted(reports) == [1, 2, 3, 4]
    assert all(np.isfinite(figures["loss"]) for figures in reports.values())
    assert states[4].train.step == 4


def test_overlapped_keeps_the_staleness_bound_and_survives_a_killed_runner(synthetic, tmp_path):
    """The rest of the clips goes past the rollout actors; one of these dies on the way."""
    config = tiny_config(
        "cluster.mode=local", "rl.staleness=2", "rl.rollout_fraction=0.5", "rl.env_runners=2",
        "rl.rollout_clips=2",
    )  # fmt: skip
    healthy = []

    def kill(backend, step):
        group = backend._algorithm.env_runner_group
        healthy.append(group.num_healthy_remote_workers())
        if step == 1:
            pids = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
            os.kill(pids[0], signal.SIGKILL)

    reports, states, _ = _ray(config, synthetic, tmp_path, steps=10, between=kill)
    assert sorted(reports) == list(range(1, 11))
    lags = [figures["rollout/mae_lag"] for figures in reports.values()]
    assert max(lags) <= 2
    assert all(np.isfinite(figures["loss"]) for figures in reports.values())
    assert states[10].train.step == states[10].policy.version == 10
    assert healthy[0] == 2


def test_a_run_continues_from_a_state(synthetic, tmp_path):
    config = tiny_config("cluster.mode=local", *LOCKSTEP)
    _, states, cursor = _serial(config, synthetic, steps=3)
    _, wanted, _ = _serial(config, synthetic)
    _, got, _ = _ray(
        config, synthetic, tmp_path, state=states[3], cursor=cursor, first=3
    )  # fmt: skip
    _assert_same(got[STEPS], wanted[STEPS])


def test_fixed_maskers_need_no_rllib(synthetic, tmp_path):
    config = tiny_config("cluster.mode=local", "masking.system=tube")
    reports, states, _ = _ray(config, synthetic, tmp_path)
    wanted_reports, wanted_states, _ = _serial(config, synthetic)
    assert [reports[s]["loss"] for s in sorted(reports)] == pytest.approx(
        [wanted_reports[s]["loss"] for s in sorted(wanted_reports)], abs=1e-6
    )
    _assert_same(states[STEPS], wanted_states[STEPS])
    assert states[STEPS].policy is None


def test_nothing_is_left_behind(synthetic, tmp_path):
    """After a closed backend all CPUs are free again, so that the next run can start."""
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

    def kill(backend, step):
        if step == 4:
            workers = _processes("RayTrainWorker")
            assert len(workers) == 2
            workers[0].send_signal(signal.SIGKILL)

    reports, got, _ = _ray(config, synthetic, tmp_path / "killed", steps=10, between=kill)
    assert sorted(reports) == list(range(1, 11))
    _assert_same(got[10], wanted[10])


def _processes(name):
    """Ray workers of this test's cluster by their title."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if any(name in part for part in child.cmdline())]
