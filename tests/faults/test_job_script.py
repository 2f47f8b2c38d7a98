"""configs/cluster/ray_job.sh against a head with a token."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.runs.command import ROOT
from tests.runs.test_job_submit import head  # noqa: F401

pytestmark = pytest.mark.faults


def test_the_script_submits_with_the_token_and_not_without(head):  # noqa: F811
    dashboard, environment = head
    command = ["configs/cluster/ray_job.sh", "jobs/pretrain.py", "--config", "configs/demo.yaml",
               "--dry-run"]  # fmt: skip

    def submit(token):
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
            env={**environment, "RAY_ADDRESS": dashboard, "RAY_AUTH_TOKEN": token},
        )  # fmt: skip

    wrong = submit("0" * 64)
    assert wrong.returncode != 0
    assert any(word in wrong.stderr for word in ("Authentication", "Unauthorized", "403"))
    deadline = time.monotonic() + 60
    while "No available agent" in (done := submit(environment["RAY_AUTH_TOKEN"])).stderr:
        assert time.monotonic() < deadline
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mode: address" in done.stdout + done.stderr
    assert environment["RAY_AUTH_TOKEN"] not in done.stdout + done.stderr
