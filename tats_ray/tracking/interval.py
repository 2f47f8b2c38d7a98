"""Figures of single steps, averaged over logging intervals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """Mean figures of the steps since the last record; `step` is the last of them."""

    step: int
    figures: dict[str, float]


# name -> (sum, count) of an interval that has begun
OpenInterval = dict[str, tuple[float, int]]

# Counts over the whole run: a record has their newest value, not a mean.
_COUNTS = {"skipped_steps", "ppo/skipped_updates"}


class IntervalMean:
    """Collects the figures of consecutive steps and closes a record at each multiple of `every`."""

    def __init__(self, every: int, begun: OpenInterval | None = None) -> None:
        """Args: begun: what a checkpoint kept of the interval it fell into."""
        self.every = every
        self._sums: OpenInterval = dict(begun or {})
        self._last = 0

    @property
    def begun(self) -> OpenInterval:
        """The interval as it stands, for a checkpoint."""
        return dict(self._sums)

    def add(self, step: int, figures: dict[str, float]) -> Record | None:
        """Takes in one step; returns the record that it completes, if it does."""
        for name, value in figures.items():
            total, count = (0.0, 0) if name in _COUNTS else self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        self._last = step
        return self.close() if step % self.every == 0 else None

    def close(self) -> Record | None:
        """Ends the interval early; None where it is empty."""
        if not self._sums:
            return None
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return Record(self._last, means)
