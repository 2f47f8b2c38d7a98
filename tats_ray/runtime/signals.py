"""SIGTERM and Ctrl-C as a wish to stop at the next safe point."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """Becomes set at the first SIGTERM or SIGINT; a second one interrupts at once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def install(self) -> None:
        """Takes over the signals; after `ray.init`, which installs handlers of its own."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()
