"""What people are told while MLflow does not answer: little, and no credentials."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tats_ray.config.secrets import without_credentials
from tats_ray.tracking.console import say

_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")  # a server may echo them
_INTERVAL_SECONDS = 60.0
_LONGEST = 300


class MLflowWarning:
    """At most one warning a minute, and one line when all is well again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._warned_at: float | None = None
        self._failing = False

    def failed(self, error: BaseException) -> None:
        """A call failed and will be repeated."""
        now = self._clock()
        if self._warned_at is not None and now - self._warned_at < _INTERVAL_SECONDS:
            return
        self._warned_at, self._failing = now, True
        say(
            f"MLflow takes no records ({reason(error)}); training goes on, metrics.jsonl has all "
            "of them, and MLflow gets them when it answers"
        )

    def recovered(self) -> None:
        """Everything has been sent."""
        if self._failing:
            say("MLflow has all records again")
        self._failing = False


def reason(error: BaseException) -> str:
    """The first line of an error, without credentials."""
    error = _fault_of_database(error) or error
    lines = str(error).strip().splitlines() or ["no message"]
    text = without_credentials(f"{type(error).__name__}: {lines[0]}")
    for name in _SECRETS:
        if os.environ.get(name):
            text = text.replace(os.environ[name], "***")
    return text[:_LONGEST]


def _fault_of_database(error: BaseException) -> BaseException | None:
    """What the database itself said, which SQLAlchemy and MLflow wrap in pages of their own."""
    place: BaseException | None = error
    while place is not None:
        origin = getattr(place, "orig", None)
        if isinstance(origin, BaseException):
            return origin
        place = place.__cause__ or place.__context__
    return None
