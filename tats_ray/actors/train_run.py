"""The driver's side of the Train workers: items out, reports and states back."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import ray
import ray.train
from ray.train.torch import TorchTrainer

from tats_ray.actors.cluster import Resources
from tats_ray.actors.file_rendezvous import FileRendezvousConfig
from tats_ray.actors.hub import HubClient, TrainerEvents, WorkItem
from tats_ray.actors.placement import as_resources
from tats_ray.actors.train_group import LossReport, TrainGroup
from tats_ray.actors.train_worker import WorkerPlan, run_worker
from tats_ray.config.job import JobConfig
from tats_ray.errors import ComponentTimeoutError
from tats_ray.models.state import VersionedWeights
from tats_ray.rl.rollout import Rollout, join_rollouts

_POLL_SECONDS = 2.0  # how often a wait looks whether what it waits for has died
_END_SECONDS = 10.0  # that a Train run has to end by itself
_SHORT_LIMIT = 5.0

T = TypeVar("T")


@contextlib.contextmanager
def train_run(
    hub: HubClient, name: str, plan: WorkerPlan, resources: Resources, storage: Path
) -> Iterator[TrainRun]:
    """The Train workers behind a hub, which come up meanwhile; ended with the block.

    Args:
        name: the hub's.
        storage: directory for Ray Train's own bookkeeping.
    """
    make = functools.partial(_torch_trainer, plan, name, resources, storage, LossReport(hub))
    run = TrainRun(plan.config, hub, TrainGroup(make, plan.config.train.max_failures))
    try:
        yield run
    finally:
        run.close()


class TrainRun:
    """Every wait has a time limit, and notices when the Train workers have failed."""

    def __init__(self, config: JobConfig, hub: HubClient, group: TrainGroup) -> None:
        self.hub = hub
        self._group = group
        self._config = config
        self._events = TrainerEvents()

    def push(self, item: WorkItem) -> None:
        """Submits the next step."""
        self.hub.push(item)

    def weights(self, at_least: int) -> VersionedWeights:
        """The newest published weights, once `at_least` steps are done."""
        return self._until(
            lambda: self.hub.weights(at_least, _POLL_SECONDS),
            f"version {at_least} of the model from the Train workers",
        )

    def rollout(self, step: int) -> Rollout:
        """What all workers drew and scored in a step, once they have done it."""
        ranks = self._config.train.workers
        return join_rollouts(
            self._until(
                lambda: self.hub.take_rollouts(step, ranks, _POLL_SECONDS),
                f"step {step + 1} of the Train workers",
            )
        )

    def events(self) -> TrainerEvents:
        """Reports and states since the last call; does not wait. A failure is raised once
        everything that came before it has been returned."""
        self._drain(0, 0.0)
        if not (self._events.reports or self._events.states):
            self._raise_failure()
        return self._taken()

    def finish(self, step: int) -> TrainerEvents:
        """Ends the run after `step` steps and returns the remaining events."""
        self.hub.end(step)
        limit = self._config.cluster.wait_seconds
        deadline = time.monotonic() + limit
        while not self._group.ended(0.1):
            known = len(self._events.reports)
            self._drain(step, _POLL_SECONDS)
            self._raise_failure()
            if len(self._events.reports) > known:
                deadline = time.monotonic() + limit
            if time.monotonic() > deadline:
                raise ComponentTimeoutError(f"the Train workers did not end within {limit:g} s")
        self._check()
        return self._taken()

    def close(self) -> None:
        """Ends the Train workers."""
        with contextlib.suppress(ray.exceptions.RayError):
            self.hub.end(0, seconds=_SHORT_LIMIT)
            self._group.wait(_END_SECONDS)  # where there is a hub, for them to end by themselves
        self._group.kill()

    def _until(self, ask: Callable[[], T | None], what: str) -> T:
        """Asks until there is an answer, and looks at the Train workers in between."""
        limit = self._config.cluster.wait_seconds
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
        fresh = self.hub.drain(until, seconds)
        self._events.reports += fresh.reports
        self._events.states += fresh.states
        self._events.losses += fresh.losses
        self._events.failure = self._events.failure or fresh.failure

    def _taken(self) -> TrainerEvents:
        events = self._events
        self._events = TrainerEvents(losses=events.losses, failure=events.failure)
        return events

    def _check(self) -> None:
        self._drain(0, 0.0)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._events.failure is not None:
            raise self._events.failure
        while self._events.losses:
            self._group.count_loss(self._events.losses.pop(0))
        self._group.ended(0.0)


def train_scaling(config: JobConfig, resources: Resources) -> ray.train.ScalingConfig:
    """How many Train workers there are, what each has and where they run."""
    place, use_gpu = config.cluster.placement.train, resources.train_gpus > 0
    each = {"CPU": resources.train_cpus} | as_resources(place)
    if use_gpu:
        each["GPU"] = resources.train_gpus
    return ray.train.ScalingConfig(
        num_workers=config.train.workers,
        use_gpu=use_gpu,
        resources_per_worker=each,
        label_selector=(place.labels or None) if place else None,
    )


def _torch_trainer(
    plan: WorkerPlan,
    hub: str,
    resources: Resources,
    storage: Path,
    losses: LossReport,
    restarts: int,
) -> TorchTrainer:
    config, use_gpu = plan.config, resources.train_gpus > 0
    return TorchTrainer(
        run_worker,
        train_loop_config={"plan": [ray.put(plan)], "hub": hub, "use_gpu": use_gpu},
        torch_config=FileRendezvousConfig() if config.cluster.mode == "local" else None,
        scaling_config=train_scaling(config, resources),
        run_config=ray.train.RunConfig(
            name=hub,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(
                max_failures=restarts,
                # What goes wrong at a start may leave the reserved CPUs behind, for which the
                # next start would wait: `TrainGroup` begins anew.
                controller_failure_limit=0,
            ),
            callbacks=[losses],
        ),
    )
