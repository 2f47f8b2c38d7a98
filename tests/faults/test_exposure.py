"""What others can reach and read: sockets, the dashboard and job API, secrets in files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.processes import LOOPBACK, listening
from tests.runs.command import ROOT, Run
from tests.runs.test_job_submit import _status, head  # noqa: F401

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("ordinary_environment")]

PASSWORD, TOKEN = "hunter2-password", "5ecret" * 11
LOCAL = ["cluster.mode=local", "cluster.object_store_mb=200", "train.steps=2000"]


@pytest.fixture
def ray_folder(monkeypatch):
    """Where the run's Ray keeps its logs; short, for Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_local_run_is_reachable_from_this_machine_only(
    synthetic, tmp_path, ray_folder, monkeypatch
):
    """Whose Train workers and learners meet over sockets as well."""
    monkeypatch.setenv("TMPDIR", str(ray_folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    run = Run(synthetic, tmp_path, "local", *LOCAL, "train.workers=2", "rl.learners=2")
    process = run.start()
    run.wait_for("checkpoints/step_*/progress.json", process)
    addresses, meetings = listening(process.pid), set(ray_folder.glob("tats_ray_*/meeting"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=100) == 0
    assert len(addresses) > 3, "Ray was running"
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert {ip for _, ip in addresses} <= LOOPBACK, addresses
    assert len(meetings) == 2, "of Train workers, and of learners"
    assert not list(ray_folder.glob("tats_ray_*")), "left behind"


def test_secrets_are_written_nowhere(synthetic, tmp_path, ray_folder, monkeypatch):
    """Neither into the run directory, nor onto the terminal, nor into the logs of Ray."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    run = Run(
        synthetic, tmp_path, "secret", *LOCAL,
        f"tracking.uri=http://alice:{PASSWORD}@127.0.0.1:9", "tracking.wait_seconds=1",
    )  # fmt: skip
    process = run.start()
    run.wait_for("checkpoints/step_*/progress.json", process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert "MLflow is unreachable" in output
    files = [
        path
        for folder in (tmp_path, ray_folder)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    assert any(path.name.startswith("raylet") for path in files)
    assert run.path / "config.yaml" in files
    holding = [path for path in files if _holds_secret(path.read_bytes())]
    assert holding == []
    assert not _holds_secret(output.encode())


def _holds_secret(content):
    return any(secret.encode() in content for secret in (PASSWORD, TOKEN, "alice"))


def test_a_dry_run_prints_no_password():
    done = subprocess.run(
        [
            sys.executable, "jobs/pretrain.py", "--config", "configs/demo.yaml", "--dry-run",
            f"tracking.uri=postgresql://alice:{PASSWORD}@db/mlflow?sslpassword={PASSWORD}",
        ],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "uri: postgresql://db/mlflow?sslpassword=***" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_a_head_answers_to_its_token_only(head, token, tmp_path):  # noqa: F811
    dashboard, environment = head
    for path in ("/api/jobs/", "/api/cluster_status", "/nodes?view=summary", "/logical/actors",
                 "/api/v0/tasks", "/api/v0/logs"):  # fmt: skip
        assert _status(f"{dashboard}{path}", token) in (401, 403), path
        assert _status(f"{dashboard}{path}", environment["RAY_AUTH_TOKEN"]) not in (401, 403), path
    job = json.dumps({"entrypoint": f"touch {tmp_path}/never"}).encode()
    request = urllib.request.Request(f"{dashboard}/api/jobs/", data=job, method="POST")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code in (401, 403)
    assert not (tmp_path / "never").exists()


def test_a_driver_without_the_token_cannot_join(head):  # noqa: F811
    """Over gRPC, past the dashboard."""
    _, environment = head
    (address,) = {
        part.removeprefix("--gcs-address=")
        for process in psutil.process_iter(["cmdline"])
        for part in process.info["cmdline"] or []
        if part.startswith("--gcs-address=") and _has_token(process, environment)
    }
    script = (
        f"import ray; ray.init(address='{address}', log_to_driver=False); "
        "print('nodes', len(ray.nodes()))"
    )
    answers = {}
    for name, token in (("right", environment["RAY_AUTH_TOKEN"]), ("wrong", "0" * 64)):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False,
            env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}, timeout=200,
        )  # fmt: skip
        answers[name] = (done.returncode == 0, "nodes 1" in done.stdout)
    assert answers == {"right": (True, True), "wrong": (False, False)}


def _has_token(process, environment):
    try:
        return process.environ().get("RAY_AUTH_TOKEN") == environment["RAY_AUTH_TOKEN"]
    except psutil.Error:
        return False
