"""Trials as Ray tasks: the same metrics as one by one, also when a trial's process is killed."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest

from tats_ray.config.compare import CompareConfig
from tats_ray.config.load import load_as, validate_as
from tats_ray.config.tree import Config
from tats_ray.controller.compare import compare
from tats_ray.errors import ResourceError
from tests.conftest import TINY


def _config(synthetic, output, **changes) -> CompareConfig:
    base = load_as(Config, None, TINY).model_dump(exclude={"run", "masking"})
    base["data"] |= {"manifest": str(synthetic.train), "held_out_manifest": str(synthetic.held_out)}
    base["checkpoint"] = {"interval": 2}
    section = {
        "arms": {"random": ["masking.system=random"], "tube": ["masking.system=tube"]},
        "ratios": [0.75],
        "seeds": [0],
        "references": ["random"],
        "trial_cpus": 4,
    }
    probe = {"train": str(synthetic.train), "test": str(synthetic.held_out), "l2": [0.1]}
    tree = {
        "run": {"name": "study", "output_dir": str(output)},
        "compare": section | changes,
        "pretrain": base,
        "probe": probe,
        "tracking": {"mlflow": False},
    }
    return validate_as(CompareConfig, tree)


def _metrics(comparison) -> list:
    return [(one.arm, one.steps, one.gflops, one.metrics) for one in comparison.results]


def _kill_a_trial(output, killed: list[int]) -> None:
    """Ends the process of whichever trial has written a checkpoint first."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if list(output.glob("study/trials/*/checkpoints/step_*")):
            for process in psutil.Process().children(recursive=True):
                if process.name().startswith("ray::run_trial"):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
        time.sleep(0.005)


@pytest.mark.slow
def test_tasks_give_the_metrics_of_trials_in_turn_though_one_is_killed(
    cluster, synthetic, tmp_path
):
    killed: list[int] = []
    output = tmp_path / "tasks"
    killer = threading.Thread(target=_kill_a_trial, args=(output, killed))
    killer.start()
    found = compare(_config(synthetic, output))
    killer.join()
    assert killed
    wanted = compare(_config(synthetic, tmp_path / "turn", execution="in_turn"))
    assert _metrics(found) == _metrics(wanted)


def test_a_trial_that_no_cluster_can_hold_is_refused(cluster, synthetic, tmp_path):
    with pytest.raises(ResourceError, match="a trial needs 99"):
        compare(_config(synthetic, tmp_path, trial_cpus=99))
