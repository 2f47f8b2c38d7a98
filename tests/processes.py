"""Ray's worker processes of this test, by what they do; and where processes listen."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress

import psutil

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def workers(title: str, parent: int | None = None) -> list[psutil.Process]:
    """Live Ray workers below a driver (this process, if not given) whose title begins so."""
    found = []
    for process in psutil.Process(parent or os.getpid()).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(f"ray::{title}"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def listening(pid: int) -> set[tuple[str, str]]:
    """Names and addresses at which a process and its descendants accept connections."""
    found = psutil.Process(pid)
    addresses = set()
    for process in [found, *found.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # a worker that has just ended listens no more
            addresses |= {
                (process.name(), connection.laddr.ip)
                for connection in process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            }
    return addresses


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(found, what: str, seconds: float = 60):
    """What `found` returns, as soon as it is something."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.01)
    return result


def later(seconds: float, do) -> threading.Timer:
    """Starts a timer."""
    timer = threading.Timer(seconds, do)
    timer.start()
    return timer
