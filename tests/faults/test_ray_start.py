"""Ray cannot be started on this machine: one line, exit code 2, nothing of Ray left behind."""

from __future__ import annotations

import os
import signal
import tempfile

import psutil
import pytest

from tests.faults.signalled import RAY
from tests.runs.command import Run

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("ordinary_environment"),
]


def _ends_in_a_line(process, reason):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "cluster.mode=local: Ray cannot be started (" in line
    assert reason in line
    assert "Traceback" not in output


def test_a_folder_whose_name_is_too_long_for_sockets(synthetic, tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="x" * 100) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        process = Run(synthetic, tmp_path, "long", *RAY).start()
        _ends_in_a_line(process, "AF_UNIX path length")


def test_a_raylet_that_does_not_come_up(synthetic, tmp_path):
    process = Run(synthetic, tmp_path, "stalled", *RAY).start()
    parent = psutil.Process(process.pid)
    daemons: list[psutil.Process] = []
    while not any(daemon.name() == "raylet" for daemon in daemons):
        assert process.poll() is None, process.stdout.read()
        daemons = parent.children(recursive=True)
    (raylet,) = [daemon for daemon in daemons if daemon.name() == "raylet"]
    os.kill(raylet.pid, signal.SIGSTOP)
    _ends_in_a_line(process, "timed out during startup")
    _, alive = psutil.wait_procs(daemons, timeout=30)
    assert alive == []
