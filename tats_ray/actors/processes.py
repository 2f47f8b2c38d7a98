"""What a command settles before Ray starts: its threads' memory, and its daemons' signals."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_M_ARENA_MAX = -8  # <malloc.h> of glibc


def share_one_heap() -> None:
    """Lets threads that are started from now on take their memory from the heaps that are there.

    Ray gives this process dozens of threads. With a heap for each, as glibc has it, what they free
    is not given back, and a driver grows several times as fast (docs/architecture.md). A user's own
    MALLOC_ARENA_MAX wins; other systems than glibc are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, 1)


@contextmanager
def out_of_signals_way() -> Iterator[None]:
    """Around the start of a local cluster.

    Ctrl-C in a terminal and many schedulers' SIGTERM go to the whole process group. Ray's daemons,
    and the workers below them, would be gone before the command has asked them for the last state;
    so every daemon gets a group of its own. They still end with the command: the kernel kills them
    when it dies.

    Ray also takes over SIGTERM, to kill its daemons and leave with a code of its own. A command
    that has a handler keeps it.
    """
    from ray._private import services, utils  # Ray has no public way; a test notices a change

    popen, take_over = services.ConsolePopen, utils.set_sigterm_handler

    class InOwnGroup(popen):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, process_group=0, **kwargs)

    services.ConsolePopen = InOwnGroup
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        services.ConsolePopen, utils.set_sigterm_handler = popen, take_over
        if callable(handler) and threading.current_thread() is threading.main_thread():
            # Ray's core has put one of its own before it, which prints a trace, and at a second
            # signal ends the process.
            signal.signal(signal.SIGTERM, handler)
