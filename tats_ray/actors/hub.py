"""The hub: a named actor where driver and Train workers meet.

It keeps numbered work items until a snapshot has passed them, so that a restarted worker group
replays exactly; the newest autoencoder weights, which it owns, so that they outlive the worker that
made them; and the list of broken videos. It holds references, never tensors by value, and does
without PyTorch, which takes seconds to import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tats_ray.data.clips import ClipBatch
from tats_ray.data.stage import Quarantine
from tats_ray.errors import TatsRayError, VideoDecodeError
from tats_ray.models.state import State, VersionedWeights
from tats_ray.training.reports import StepReport, TrainerState

if TYPE_CHECKING:
    from tats_ray.rl.rollout import Rollout


@dataclass(frozen=True)
class WorkItem:
    """One numbered optimiser step for the Train workers.

    Attributes:
        step: 0-based number of the step.
        batch: the global batch by reference.
        snapshot: whether the full training state is wanted after this step.
        rollout_visible: int64 [a, k], visible tokens of the first a clips; None where rollout
            workers drew none.
        policy: sampler for the other clips; None where there are none, or no policy yet.
    """

    step: int
    batch: ClipBatch
    snapshot: bool
    rollout_visible: np.ndarray | None = None
    policy: VersionedWeights | None = None


@dataclass
class TrainerEvents:
    """What happened at the Train workers since the driver last asked."""

    reports: list[StepReport] = field(default_factory=list)
    states: list[TrainerState] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)  # causes, of workers that were started anew
    failure: TatsRayError | None = None


class Hub:
    """Asynchronous actor; every wait returns None at its time limit, and the caller says why."""

    def __init__(self, quarantined: dict[str, str]) -> None:
        self._changed = asyncio.Condition()
        self._weights: VersionedWeights | None = None
        self._snapshot: VersionedWeights | None = None
        self._items: dict[int, WorkItem] = {}
        self._end: int | None = None
        self._rollouts: dict[int, dict[int, Rollout]] = {}  # by step and rank
        self._learned = 0  # steps whose rollouts were taken
        self._reported = 0
        self._events = TrainerEvents()
        self._workers: int | None = None  # rollout workers that somebody asked for
        self._quarantine = Quarantine(quarantined)

    async def publish(self, version: int, state: State, reports: list[StepReport]) -> None:
        """Takes weights and reports; what a replay repeats is ignored, so versions only grow."""
        async with self._changed:
            if self._weights is None or version > self._weights.version:
                self._weights = VersionedWeights(version, ray.put(state))
            self._take(reports)
            self._changed.notify_all()

    async def weights(self, at_least: int, seconds: float) -> VersionedWeights | None:
        """The newest weights, once they are of version `at_least` or newer."""

        def fresh() -> bool:
            return self._weights is not None and self._weights.version >= at_least

        await self._wait(lambda: self._events.failure or fresh(), seconds)
        return self._weights if fresh() else None

    async def push(self, item: WorkItem) -> None:
        async with self._changed:
            assert item.step not in self._items, f"item {item.step} was pushed twice"
            self._items[item.step] = item
            self._changed.notify_all()

    async def item(self, step: int, seconds: float) -> WorkItem | str | None:
        """Item of a step, or "end" where the run stops before it, or None at the time limit."""
        await self._wait(lambda: step in self._items or self._at_end(step), seconds)
        if self._at_end(step):
            return "end"
        return self._items.get(step)

    async def store_rollout(self, step: int, rank: int, rollout: Rollout) -> None:
        """Takes what a worker drew and scored in its step; what a replay repeats is ignored."""
        async with self._changed:
            if step >= self._learned:
                self._rollouts.setdefault(step, {})[rank] = rollout
            self._changed.notify_all()

    async def take_rollouts(self, step: int, ranks: int, seconds: float) -> list[Rollout] | None:
        """The rollouts of a step, in the order of ranks, once all workers have stored theirs."""

        def complete() -> bool:
            return len(self._rollouts.get(step, {})) == ranks

        await self._wait(lambda: self._events.failure or complete(), seconds)
        if not complete():
            return None
        self._learned = step + 1
        return [rollout for _, rollout in sorted(self._rollouts.pop(step).items())]

    async def end(self, step: int) -> None:
        """No item from `step` on will come."""
        async with self._changed:
            self._end = step
            self._changed.notify_all()

    async def store_snapshot(
        self, state: TrainerState, wanted: bool, reports: list[StepReport]
    ) -> None:
        """Stores the state that a restarted worker group continues from; drops earlier items.

        Args:
            wanted: whether the driver asked for it, and not only recovery.
            reports: those up to the state, which no replay brings again.
        """
        async with self._changed:
            self._snapshot = VersionedWeights(state.step, ray.put(state))
            self._items = {step: i for step, i in self._items.items() if step >= state.step}
            if wanted:
                self._events.states.append(state)
            self._take(reports)
            self._changed.notify_all()

    async def newest_snapshot(self) -> VersionedWeights | None:
        return self._snapshot

    async def fail(self, error: TatsRayError) -> None:
        """A Train worker met a fault that a restart would only meet again."""
        async with self._changed:
            self._events.failure = self._events.failure or error
            self._changed.notify_all()

    async def lost(self, cause: str) -> None:
        """Train workers died, and are started anew where a limit permits."""
        async with self._changed:
            self._events.losses.append(cause)

    async def drain(self, reports_until: int, seconds: float) -> TrainerEvents:
        """Events since the last call; waits until step `reports_until` has been reported."""
        await self._wait(lambda: self._events.failure or self._reported >= reports_until, seconds)
        events, self._events = self._events, TrainerEvents()
        return events

    async def ask_for_workers(self, count: int) -> None:
        self._workers = count

    async def workers_asked_for(self) -> int | None:
        return self._workers

    async def quarantine(self, failures: list[tuple[str, str]]) -> None:
        self._quarantine.add([VideoDecodeError(path, reason) for path, reason in failures])

    async def quarantined(self) -> dict[str, str]:
        return dict(self._quarantine.known())

    def _take(self, reports: list[StepReport]) -> None:
        """Adds to the events what is not yet known."""
        fresh = [report for report in reports if report.step > self._reported]
        self._events.reports.extend(fresh)
        self._reported = max([self._reported, *(report.step for report in fresh)])

    def _at_end(self, step: int) -> bool:
        return self._end is not None and step >= self._end

    async def _wait(self, ready: Callable[[], Any], seconds: float) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(ready), seconds)
            except TimeoutError:
                return


_ANSWER_SECONDS = 2.0


class HubClient:
    """The hub as other processes call it; every call waits for its answer."""

    def __init__(self, actor: ActorHandle) -> None:
        self._actor = actor

    def publish(self, version: int, state: State, reports: list[StepReport]) -> None:
        ray.get(self._actor.publish.remote(version, state, reports))

    def weights(self, at_least: int, seconds: float) -> VersionedWeights | None:
        return ray.get(self._actor.weights.remote(at_least, seconds))

    def push(self, item: WorkItem) -> None:
        ray.get(self._actor.push.remote(item))

    def item(self, step: int, seconds: float) -> WorkItem | str | None:
        return ray.get(self._actor.item.remote(step, seconds))

    def store_rollout(self, step: int, rank: int, rollout: Rollout) -> None:
        ray.get(self._actor.store_rollout.remote(step, rank, rollout))

    def take_rollouts(self, step: int, ranks: int, seconds: float) -> list[Rollout] | None:
        return ray.get(self._actor.take_rollouts.remote(step, ranks, seconds))

    def end(self, step: int, seconds: float | None = None) -> None:
        ray.get(self._actor.end.remote(step), timeout=seconds)

    def store_snapshot(self, state: TrainerState, wanted: bool, reports: list[StepReport]) -> None:
        ray.get(self._actor.store_snapshot.remote(state, wanted, reports))

    def newest_snapshot(self) -> VersionedWeights | None:
        return ray.get(self._actor.newest_snapshot.remote())

    def fail(self, error: TatsRayError) -> None:
        ray.get(self._actor.fail.remote(error))

    def lost(self, cause: str, seconds: float) -> None:
        ray.get(self._actor.lost.remote(cause), timeout=seconds)

    def drain(self, reports_until: int, seconds: float) -> TrainerEvents:
        return ray.get(self._actor.drain.remote(reports_until, seconds))

    def ask_for_workers(self, count: int) -> None:
        """Asks for so many rollout workers."""
        ray.get(self._actor.ask_for_workers.remote(count))

    def workers_asked_for(self) -> int | None:
        """The newest number that was asked for; None where none was."""
        return ray.get(self._actor.workers_asked_for.remote())

    def add(self, failures: list[VideoDecodeError]) -> None:
        # Waits, so that a block's failures are counted before its clips are trained on.
        pairs = [(failure.path, failure.reason) for failure in failures]
        ray.get(self._actor.quarantine.remote(pairs))

    def known(self) -> Mapping[str, str]:
        """Path -> reason of broken videos; with `add` what the decode stage reads and writes."""
        return ray.get(self._actor.quarantined.remote())

    def is_dead(self) -> bool:
        """Whether items, weights and snapshots that were not yet in a checkpoint are lost."""
        try:
            ray.get(self._actor.quarantined.remote(), timeout=_ANSWER_SECONDS)
        except ray.exceptions.ActorDiedError:
            return True
        except ray.exceptions.RayError:  # slow, or unreachable for a moment
            return False
        return False

    def kill(self) -> None:
        ray.kill(self._actor)


def find_hub(name: str) -> HubClient | None:
    """The hub of a run on the cluster that this process has joined; None where there is none."""
    try:
        return HubClient(ray.get_actor(name))
    except ValueError:
        return None


@contextmanager
def running_hub(name: str, quarantined: dict[str, str]) -> Iterator[HubClient]:
    """A hub under a name that Train workers find it by, ended with the block; it reserves no CPU.

    It stays on the driver's node: the run ends with that one anyway, and what the hub holds is lost
    with no other.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Hub).options(
        name=name, num_cpus=0, max_concurrency=64, scheduling_strategy=here
    )
    hub = HubClient(actor.remote(quarantined))
    try:
        yield hub
    finally:
        hub.kill()
