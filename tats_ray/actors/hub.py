"""The hub: a named actor where driver and Train workers meet.

It keeps numbered work items until a snapshot has passed them, so that a restarted worker group
replays exactly; the newest autoencoder weights, which it owns, so that they outlive the worker that
made them; and the list of broken videos. It holds references, never tensors by value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tats_ray.data.stage import Quarantine
from tats_ray.errors import TatsRayError, VideoDecodeError
from tats_ray.models.state import State
from tats_ray.rl.versions import VersionedWeights
from tats_ray.training.work import News, NumberedItem, StepReport


class Hub:
    """Asynchronous actor; every wait returns None at its time limit, and the caller says why."""

    def __init__(self, quarantined: dict[str, str]) -> None:
        self._changed = asyncio.Condition()
        self._weights: VersionedWeights | None = None
        self._snapshot: VersionedWeights | None = None
        self._items: dict[int, NumberedItem] = {}
        self._end: int | None = None
        self._reported = 0
        self._news = News()
        self._quarantine = Quarantine(quarantined)

    # Weights ---------------------------------------------------------------------------------

    async def publish(self, version: int, state: State, reports: list[StepReport]) -> None:
        """Takes weights and reports; what a replay repeats is ignored, so versions only grow."""
        async with self._changed:
            if self._weights is None or version > self._weights.version:
                self._weights = VersionedWeights(version, ray.put(state))
            self._take(reports)
            self._changed.notify_all()

    async def weights(self, at_least: int, seconds: float) -> VersionedWeights | None:
        """The newest weights, once they are of version `at_least` or newer."""
        await self._wait(
            lambda: self._failed() or (self._weights and self._weights.version >= at_least),
            seconds,
        )
        fresh = self._weights is not None and self._weights.version >= at_least
        return self._weights if fresh else None

    # Work items ------------------------------------------------------------------------------

    async def push(self, item: NumberedItem) -> None:
        async with self._changed:
            assert item.step not in self._items, f"item {item.step} was pushed twice"
            self._items[item.step] = item
            self._changed.notify_all()

    async def item(self, step: int, seconds: float) -> NumberedItem | str | None:
        """Item of a step, or "end" where the run stops before it, or None at the time limit."""
        await self._wait(lambda: step in self._items or self._at_end(step), seconds)
        if self._at_end(step):
            return "end"
        return self._items.get(step)

    async def end(self, step: int) -> None:
        """No item from `step` on will come."""
        async with self._changed:
            self._end = step
            self._changed.notify_all()

    # Snapshots -------------------------------------------------------------------------------

    async def store_snapshot(self, state: Any, wanted: bool, reports: list[StepReport]) -> None:
        """Keeps the state that a restarted worker group continues from; drops the items before.

        Args:
            state: the trainer's, with a `step`.
            wanted: whether the driver asked for it, and not only recovery.
            reports: those up to the state, which no replay brings again.
        """
        async with self._changed:
            self._snapshot = VersionedWeights(state.step, ray.put(state))
            self._items = {step: i for step, i in self._items.items() if step >= state.step}
            if wanted:
                self._news.states.append(state)
            self._take(reports)
            self._changed.notify_all()

    async def newest_snapshot(self) -> VersionedWeights | None:
        return self._snapshot

    # News ------------------------------------------------------------------------------------

    async def fail(self, error: TatsRayError) -> None:
        """A Train worker met a fault that a restart would only meet again."""
        async with self._changed:
            self._news.failure = self._news.failure or error
            self._changed.notify_all()

    async def drain(self, reports_until: int, seconds: float) -> News:
        """News since the last call; waits until step `reports_until` has been reported."""
        await self._wait(lambda: self._failed() or self._reported >= reports_until, seconds)
        news, self._news = self._news, News()
        return news

    # Broken videos ---------------------------------------------------------------------------

    async def quarantine(self, failures: list[tuple[str, str]]) -> None:
        self._quarantine.add([VideoDecodeError(path, reason) for path, reason in failures])

    async def quarantined(self) -> dict[str, str]:
        return dict(self._quarantine.known())

    def _take(self, reports: list[StepReport]) -> None:
        """Adds to the news what is not yet known."""
        fresh = [report for report in reports if report.step > self._reported]
        self._news.reports.extend(fresh)
        self._reported = max([self._reported, *(report.step for report in fresh)])

    def _at_end(self, step: int) -> bool:
        return self._end is not None and step >= self._end

    def _failed(self) -> bool:
        return self._news.failure is not None

    async def _wait(self, ready: Callable[[], Any], seconds: float) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(ready), seconds)
            except TimeoutError:
                return


def start_hub(name: str, quarantined: dict[str, str]) -> Any:
    """Starts the hub under a name that Train workers find it by; it takes no CPU share.

    It stays on the driver's node: the run ends with that one anyway, and what the hub holds is lost
    with no other.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Hub).options(
        name=name, num_cpus=0, max_concurrency=64, scheduling_strategy=here
    )
    return actor.remote(quarantined)


class HubQuarantine:
    """The hub's list of broken videos, as the decode stage sees it."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def known(self) -> dict[str, str]:
        return ray.get(self._hub.quarantined.remote())

    def add(self, failures: list[VideoDecodeError]) -> None:
        # Waits, so that a block's failures are counted before its clips are trained on.
        pairs = [(failure.path, failure.reason) for failure in failures]
        ray.get(self._hub.quarantine.remote(pairs))
