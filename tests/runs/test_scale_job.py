"""jobs/scale.py beside a run, as a user gives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.runs.command import ROOT, Run

RAY = ["cluster.mode=local", "cluster.cpus=4", "cluster.object_store_mb=200"]
ENDLESS = ["train.steps=5000", "checkpoint.interval=5000", "tracking.log_interval=5",
           "tracking.mlflow=false"]  # fmt: skip


def _scale(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "jobs/scale.py", *map(str, arguments)], cwd=ROOT, capture_output=True,
        text=True, env=os.environ, timeout=200, check=False,
    )  # fmt: skip


def _wait_for_workers(run: Run, process: subprocess.Popen, count: int) -> None:
    deadline = time.monotonic() + 200
    while True:
        lines = run.path.joinpath("metrics.jsonl").read_text().splitlines()
        if lines and json.loads(lines[-1])["rollout/workers"] == count:
            return
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_running_run_is_scaled_up_and_down(synthetic, tmp_path):
    run = Run(synthetic, tmp_path, "scaled", *RAY, *ENDLESS)
    process = run.start()
    run.wait_for("metrics.jsonl", process)
    _wait_for_workers(run, process, 1)
    for count in (3, 2):
        done = _scale(run.path, "--rollout-workers", count)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{run.path}: asked for {count} rollout workers\n"
        _wait_for_workers(run, process, count)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "rollout workers 1 -> 3, as asked" in output
    assert "rollout workers 3 -> 2, as asked" in output
    assert not (run.path / "ray_train" / "cluster.json").exists()


def test_what_is_not_running_is_not_scaled(tmp_path):
    done = _scale(tmp_path, "--rollout-workers", 2)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path}: is not at work on Ray; only a running run can be scaled\n"
    )
    assert _scale(tmp_path, "--rollout-workers", 0).stderr.startswith("error: --rollout-workers: 0")
