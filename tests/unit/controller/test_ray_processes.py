"""Threads of a command that uses Ray share one heap."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Four threads that are there at the same time and allocate, then glibc's own account of its heaps.
_HEAPS = """
import ctypes, threading
from tats_ray.actors.cluster import share_one_heap

share_one_heap()
libc = ctypes.CDLL(None)
together = threading.Barrier(4)

def allocate():
    together.wait()
    libc.malloc(ctypes.c_size_t(1000))
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def _heaps(**environment: str) -> int:
    plain = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    run = [sys.executable, "-c", _HEAPS]
    account = subprocess.run(run, env=plain | environment, check=True, stdout=subprocess.PIPE)
    return account.stdout.count(b"<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps of glibc")
def test_threads_share_one_heap_unless_the_user_says_otherwise():
    assert _heaps() == 1
    assert _heaps(MALLOC_ARENA_MAX="3") == 3
