"""How many rollout workers a run needs, from where its iterations wait."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_WINDOW = 10  # iterations that a decision rests on; the next one waits for as many again
_BOUND = 0.95  # share of an iteration in which rollouts are at work: training waits for them
_EASY = 0.7  # share that they may have with one worker less


class WorkerScaler:
    """Adds workers while training waits for rollouts, and removes them while these wait for
    training.

    An iteration first waits until the autoencoder is new enough, then rolls out. Where the wait is
    next to nothing, rollouts are what bounds the run, and half as many workers again are added. One
    is removed where the others would still be done within 70 % of an iteration. Between the
    two bounds nothing changes, so that the number does not swing.
    """

    def __init__(self, least: int, most: int) -> None:
        """
        Args:
            least: workers at least.
            most: workers at most.
        """
        assert 1 <= least <= most, "the settings hold the bounds"
        self._least, self._most = least, most
        self._seen: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._workers = least  # that were at work in what was seen

    def decide(self, workers: int, waited: float, rolled_out: float) -> int:
        """The number of workers to go on with.

        Args:
            workers: that were at work in this iteration.
            waited: seconds in which rollouts waited for training.
            rolled_out: seconds of drawing and scoring.
        """
        if workers != self._workers:  # some are still to come, or were lost: another load
            self._seen.clear()
            self._workers = workers
        self._seen.append((waited, rolled_out))
        if len(self._seen) < _WINDOW:
            return workers
        waits, works = (median(seconds) for seconds in zip(*self._seen, strict=True))
        whole = waits + works
        if works >= _BOUND * whole:
            wanted = workers + math.ceil(workers / 2)
        elif workers > 1 and works * workers / (workers - 1) <= _EASY * whole:
            wanted = workers - 1
        else:
            return workers
        self._seen.clear()
        return min(max(wanted, self._least), self._most)
