"""Ray's worker processes of this test, by what they do."""

from __future__ import annotations

import os
import threading
import time

import psutil


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
