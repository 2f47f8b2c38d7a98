"""Ray nodes on this machine, each in a process group of its own so that it can be lost whole."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.processes import free_port

RAY = Path(sys.executable).parent / "ray"


class Nodes:
    """A cluster on loopback with a token; `environment` is what its clients need."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short, for Unix sockets
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": self._folder, "GLOO_SOCKET_IFNAME": "lo",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # Ray's name for: several nodes
            "RAY_num_workers_soft_limit": "64",  # decode workers stay
        }  # fmt: skip
        self._running: list[subprocess.Popen] = []

    def add_head(self, cpus: int) -> subprocess.Popen:
        port = self.address.split(":")[1]
        return self._start(cpus, "--head", f"--port={port}", "--include-dashboard=false")

    def add(self, cpus: int) -> subprocess.Popen:
        return self._start(cpus, f"--address={self.address}")

    def lose(self, node: subprocess.Popen) -> None:
        """As a machine that loses its power."""
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        self._running.remove(node)

    def close(self) -> None:
        for node in reversed(self._running):
            node.send_signal(signal.SIGTERM)
        for node in self._running:
            node.wait(timeout=60)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, cpus: int, *where: str) -> subprocess.Popen:
        log = Path(self._folder) / f"node{len(self._running)}-{time.monotonic_ns()}.log"
        with log.open("wb") as file:
            node = subprocess.Popen(
                [
                    RAY, "start", *where, "--block", "--node-ip-address=127.0.0.1",
                    f"--num-cpus={cpus}", f"--object-store-memory={200 * 2**20}",
                    "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats",
                    f"--dashboard-agent-listen-port={free_port()}",
                ],
                env=os.environ | self.environment, start_new_session=True, stdout=file,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._running.append(node)
        deadline = time.monotonic() + 300
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return node
