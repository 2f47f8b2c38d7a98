"""The driver's side of hub and Train run: items out, reports and states back."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray

from tats_ray.actors.hub import start_hub
from tats_ray.actors.train_worker import TrainRun
from tats_ray.config.job import JobConfig
from tats_ray.config.shares import Shares
from tats_ray.errors import ComponentFailedError, ComponentTimeoutError
from tats_ray.rl.versions import VersionedWeights
from tats_ray.training.work import News, NumberedItem

_POLL_SECONDS = 2.0  # how often a wait looks whether what it waits for has died

T = TypeVar("T")


class TrainLink:
    """Every wait has a time limit, and notices when the Train run has failed."""

    def __init__(self, config: JobConfig, quarantined: dict[str, str], snapshot: Any) -> None:
        """Starts the hub.

        Args:
            snapshot: state of the trainer that the workers begin with; None for none.
        """
        self.config = config
        self._name = f"hub-{config.run.name}-{uuid.uuid4().hex[:8]}"
        self.hub = start_hub(self._name, quarantined)
        if snapshot is not None:
            ray.get(self.hub.store_snapshot.remote(snapshot, False, []))
        self._run: TrainRun | None = None
        self._news = News()

    def start(
        self,
        worker: Callable[[dict[str, Any]], None],
        storage: Path,
        shares: Shares,
        **arguments: Any,
    ) -> None:
        """Begins to bring the workers up; does not wait for them.

        Args:
            worker, arguments: as in `TrainRun`.
            storage: directory for Ray Train's own bookkeeping.
        """
        resources = {"CPU": shares.train_cpus}
        if shares.train_gpus:
            resources["GPU"] = shares.train_gpus
        self._run = TrainRun(self.config, self._name, storage, resources, worker, **arguments)
        self._run.start()

    def push(self, item: NumberedItem) -> None:
        """Hands in the next step."""
        ray.get(self.hub.push.remote(item))

    def weights(self, at_least: int) -> VersionedWeights:
        """The newest published weights, once `at_least` steps are done."""
        return self._until(
            lambda: ray.get(self.hub.weights.remote(at_least, _POLL_SECONDS)),
            f"version {at_least} of the model from the Train workers",
        )

    def news(self) -> News:
        """Reports and states since the last call; does not wait. A failure is raised once
        everything that came before it has been returned."""
        self._drain(0, 0.0)
        if not (self._news.reports or self._news.states):
            self._raise_failure()
        return self._taken()

    def finish(self, step: int) -> News:
        """Ends the run after `step` steps and returns the rest of the news."""
        ray.get(self.hub.end.remote(step))
        assert self._run is not None, "finish comes after start"
        limit = self.config.cluster.wait_seconds
        deadline = time.monotonic() + limit
        while not self._run.join(0.1):
            known = len(self._news.reports)
            self._drain(step, _POLL_SECONDS)
            self._raise_failure()
            if len(self._news.reports) > known:
                deadline = time.monotonic() + limit
            if time.monotonic() > deadline:
                raise ComponentTimeoutError(f"the Train workers did not end within {limit:g} s")
        self._check()
        return self._taken()

    def quarantined(self) -> dict[str, str]:
        """Path -> reason of broken videos so far."""
        return ray.get(self.hub.quarantined.remote())

    def hub_is_dead(self) -> bool:
        """Whether items, weights and snapshots that were not yet in a checkpoint are lost."""
        try:
            ray.get(self.hub.quarantined.remote(), timeout=_POLL_SECONDS)
        except ray.exceptions.ActorDiedError:
            return True
        except ray.exceptions.RayError:
            return False
        return False

    def close(self) -> None:
        """Ends the Train run and the hub."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.hub.end.remote(0), timeout=5)
        if self._run is not None:
            self._run.join(10)
        ray.kill(self.hub)

    def _until(self, ask: Callable[[], T | None], what: str) -> T:
        """Asks until there is an answer, and looks at the Train run in between."""
        limit = self.config.cluster.wait_seconds
        deadline = time.monotonic() + limit
        while (answer := ask()) is None:
            self._check()
            if time.monotonic() > deadline:
                raise ComponentTimeoutError(
                    f"waited {limit:g} s (cluster.wait_seconds) for {what}; the cluster may lack "
                    "free CPUs or a worker may be stuck"
                )
        return answer

    def _drain(self, until: int, seconds: float) -> None:
        fresh: News = ray.get(self.hub.drain.remote(until, seconds))
        self._news.reports += fresh.reports
        self._news.states += fresh.states
        self._news.failure = self._news.failure or fresh.failure

    def _taken(self) -> News:
        news, self._news = self._news, News(failure=self._news.failure)
        return news

    def _check(self) -> None:
        self._drain(0, 0.0)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._news.failure is not None:
            raise self._news.failure
        assert self._run is not None, "start comes first"
        if self._run.ended and self._run.error is not None:
            raise ComponentFailedError(
                f"the Train run failed after train.max_failures={self.config.train.max_failures} "
                f"restarts: {_root_cause(self._run.error)}"
            )


def _root_cause(error: BaseException) -> str:
    """The first telling line of a chain of wrapped errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"
