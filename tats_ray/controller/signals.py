"""SIGTERM and Ctrl-C as a wish to stop at the next safe point."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

# `timeout` and some schedulers signal a process and then its group: one wish, told twice.
_ECHO_SECONDS = 1.0


class StopRequest:
    """The first SIGTERM or SIGINT asks for a stop; a later second one interrupts at once.

    Where nothing would be lost, which is everywhere but in `deferring`, the first one interrupts
    too: as a KeyboardInterrupt, after which `asked_once` tells it from an impatient second one.
    """

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._insisted = False
        self._deferred = False

    def install(self) -> None:
        """Takes over the signals; in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._handle)

    @property
    def is_set(self) -> bool:
        return self._asked_at is not None

    @property
    def asked_once(self) -> bool:
        return self.is_set and not self._insisted

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Inside, the first signal is only recorded: what runs here checks `is_set`."""
        yield from self._with(True)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """A wait inside `deferring` that the first signal ends."""
        yield from self._with(False)

    def unless_asked(self, wait: Callable[[], T]) -> T | None:
        """What a wait inside `deferring` gives; None where a stop was asked for by then.

        Raises:
            KeyboardInterrupt: a second signal came.
        """
        if self.is_set:
            return None
        try:
            with self.interrupting():
                return wait()
        except KeyboardInterrupt:
            if not self.asked_once:
                raise
            return None

    def _with(self, deferred: bool) -> Iterator[None]:
        before, self._deferred = self._deferred, deferred
        try:
            if self.is_set and not deferred:
                raise KeyboardInterrupt  # it came just before
            yield
        finally:
            self._deferred = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            if self._deferred:
                return
        elif now - self._asked_at < _ECHO_SECONDS:
            return
        else:
            self._insisted = True
        raise KeyboardInterrupt
