"""A local cluster whose daemons die: nothing goes on without them, and Ray tells of it in pages of
its log, some of them a minute later."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

import ray

from tats_ray.actors.ray_compat import local_daemons
from tats_ray.errors import ClusterLostError

_LOOK_SECONDS = 0.1
_END_SECONDS = 10.0  # that a raylet takes to end after it has given up its node


def watch_daemons() -> None:
    """From now on the process ends with one line when a daemon of its local cluster dies."""
    threading.Thread(target=_watch, name="watch-daemons", daemon=True).start()


def leave_if_lost() -> None:
    """Ends the process with one line if its local cluster is gone; for where a part was lost."""
    if not local_daemons() or any(node["Alive"] for node in ray.nodes()):
        _leave_if_dead()
        return
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline:
        _leave_if_dead()
        time.sleep(_LOOK_SECONDS)


def _watch() -> None:
    while ray.is_initialized():
        _leave_if_dead()
        time.sleep(_LOOK_SECONDS)


def _leave_if_dead() -> None:
    dead = [name for name, daemon in local_daemons().items() if daemon.poll() is not None]
    if not dead or not ray.is_initialized():  # this process may be ending them itself
        return
    error = ClusterLostError(
        f"Ray's {dead[0]} died, and the local cluster with it; the same command continues from the "
        "newest checkpoint"
    )
    sys.stdout.flush()
    sys.stderr.write(f"error: {error}\n")
    sys.stderr.flush()
    for daemon in local_daemons().values():  # with the agents and workers of its group
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
    # At once, as if this process had been killed: whatever it asked of Ray now would wait, and
    # Ray's own end would print pages.
    os._exit(error.exit_code)
