"""`ray job submit` of the pre-training job to a head node with token authentication."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.processes import free_port
from tests.runs.command import ROOT, STEPS, Run

BIN = Path(sys.executable).parent


def _status(url: str, token: str | None = None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as got:
            return got.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture
def head(tmp_path):
    """A head node of its own; yields its dashboard address and the environment with the token."""
    dashboard = f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",  # jobs run the first python on the head's path
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    process = subprocess.Popen(
        [
            BIN / "ray", "start", "--head", "--block", f"--port={free_port()}", "--num-cpus=4",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--disable-usage-stats",
            # The fixed default belongs to whichever cluster of this machine came first.
            f"--dashboard-agent-listen-port={free_port()}",
            "--min-worker-port=0", "--max-worker-port=0",
        ],
        env=environment, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while _status(f"{dashboard}/api/version") not in (200, 401, 403):
        assert process.poll() is None, "the head node did not start"
        assert time.monotonic() < deadline, "the head node does not answer"
        time.sleep(0.5)
    yield dashboard, environment
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:  # Ray's command waits for its daemons, however long they take
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _submit(dashboard, environment, entry):
    """`ray job submit`; the dashboard answers a little before it can place jobs, and says so."""
    submit = [BIN / "ray", "job", "submit", "--address", dashboard, "--working-dir", "."]
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(
            [*submit, "--", *entry], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=250, check=False,
        )  # fmt: skip
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(1)


@pytest.mark.slow
def test_the_job_runs_on_a_cluster_and_only_with_the_token(head, synthetic, tmp_path):
    dashboard, environment = head
    assert _status(f"{dashboard}/api/jobs/") in (401, 403)
    assert _status(f"{dashboard}/api/jobs/", token="0" * 64) in (401, 403)
    run = Run(synthetic, tmp_path, "job", "cluster.mode=address", "cluster.address=auto")
    entry = ["python", *run.command[1:]]
    done = _submit(dashboard, environment, entry)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
    assert run.summary()["steps"] == STEPS
    assert environment["RAY_AUTH_TOKEN"] not in done.stdout + done.stderr
