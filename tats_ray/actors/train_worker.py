"""A Ray Train worker: one rank, which works off the hub's numbered items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.exceptions import ActorDiedError
from ray.train.torch import get_device, prepare_model

from tats_ray.actors.decode_stream import read_remote
from tats_ray.actors.hub import HubClient, WorkItem
from tats_ray.config.job import JobConfig
from tats_ray.errors import (
    ComponentFailedError,
    ComponentTimeoutError,
    NonFiniteError,
    TatsRayError,
)
from tats_ray.models.numerics import Ranks
from tats_ray.models.samplers import TrajectorySampler
from tats_ray.models.state import VersionedWeights, load_model_state
from tats_ray.training.trainer import BuildTrainer, Masks


@dataclass(frozen=True)
class WorkerPlan:
    """What every worker of a run is told.

    Attributes:
        build_sampler: makes the policy that items name; None where rollouts train none.
    """

    config: JobConfig
    build_trainer: BuildTrainer
    build_sampler: Callable[[], TrajectorySampler] | None


def run_worker(arguments: dict[str, Any]) -> None:
    """Ray Train's function on every worker; a fault that a restart would only meet again ends the
    whole run.

    Args:
        arguments: `plan`, a list with the reference of a `WorkerPlan`; `hub`, the hub's name; and
            `use_gpu`.
    """
    plan: WorkerPlan = ray.get(arguments["plan"][0])
    torch.set_num_threads(plan.config.cluster.threads)
    hub = HubClient(ray.get_actor(arguments["hub"]))
    device = get_device() if arguments["use_gpu"] else torch.device("cpu")
    try:
        TrainWorker(plan, hub, device).run()
    except ActorDiedError:
        # The hub is the only actor called here; without it the driver starts everything anew.
        if not hub.is_dead():
            raise
    except NonFiniteError as error:
        hub.fail(error)
        raise
    except TatsRayError as error:
        failure = f"a Train worker stopped the run: {type(error).__name__}: {error}"
        hub.fail(ComponentFailedError(failure))
        raise


class TrainWorker:
    """One rank. Rank 0 publishes weights, reports and snapshots."""

    def __init__(self, plan: WorkerPlan, hub: HubClient, device: torch.device) -> None:
        context = ray.train.get_context()
        self._plan = plan
        self._hub = hub
        self.ranks = Ranks(context.get_world_rank(), context.get_world_size())
        self.trainer = plan.build_trainer(device=device, wrap=self._wrap)
        self._device = device
        self._sampler: TrajectorySampler | None = None
        self._sampler_version = -1

    def run(self) -> None:
        """Continues from the newest snapshot, works until the driver ends the run."""
        interval = self._plan.config.train.snapshot_interval
        snapshot = self._hub.newest_snapshot()
        if snapshot is not None:
            self.trainer.load(ray.get(snapshot.ref))
        self._publish(snapshot=False, asked=False)
        while not isinstance(item := self._next_item(), str):
            self._train_step(item)
            wanted = item.snapshot or self.trainer.step % interval == 0
            self._publish(snapshot=wanted, asked=item.snapshot)
        self._publish(snapshot=True, asked=True)

    def _train_step(self, item: WorkItem) -> None:
        size, rank = len(item.batch) // self.ranks.size, self.ranks.rank
        rows = range(rank * size, (rank + 1) * size)  # of the global batch, this rank's
        clips = read_remote(item.batch.rows(rows.start, rows.stop))
        rollout = self.trainer.train_step(clips, self._masks(item, rows))
        if rollout is not None:  # without what the policy saw, which is larger than the clips
            sent = replace(rollout, view=None).to(torch.device("cpu"))
            self._hub.store_rollout(item.step, rank, sent)

    def _masks(self, item: WorkItem, rows: range) -> Masks | None:
        """What is drawn for this rank's rows of the global batch."""
        visible = item.rollout_visible
        if visible is None:
            sampler = self._policy(item.policy)
            return None if sampler is None else Masks(None, sampler, self._sampler_version)
        mine = torch.from_numpy(np.array(visible[rows.start : rows.stop]))
        sampler = None if len(mine) == len(rows) else self._policy(item.policy)
        return Masks(mine, sampler, self._sampler_version)

    def _policy(self, policy: VersionedWeights | None) -> TrajectorySampler | None:
        """The sampler with the weights of the given version."""
        if policy is None or self._plan.build_sampler is None:
            return None
        if self._sampler is None:
            self._sampler = self._plan.build_sampler().to(self._device)
        if policy.version != self._sampler_version:
            load_model_state(self._sampler, ray.get(policy.ref))
            self._sampler_version = policy.version
        return self._sampler

    def _wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Makes a model data-parallel."""
        return prepare_model(model, move_to_device=False) if self.ranks.size > 1 else model

    def _next_item(self) -> WorkItem | str:
        seconds = self._plan.config.cluster.wait_seconds
        item = self._hub.item(self.trainer.step, seconds)
        if item is None:
            raise ComponentTimeoutError(
                f"Train worker {self.ranks.rank} waited {seconds:g} s for work item "
                f"{self.trainer.step}; the driver or the decoding is stuck"
            )
        return item

    def _publish(self, *, snapshot: bool, asked: bool) -> None:
        """Reports, snapshot, weights: in this order, so that a bad step is never snapshot.

        The reports go with both, and the hub takes each once: a worker may die in between.
        """
        reports = self.trainer.reports(self.ranks)
        if self.ranks.rank > 0:
            return
        if snapshot:
            self._hub.store_snapshot(self.trainer.state(), asked, reports)
        self._hub.publish(self.trainer.step, self.trainer.weights(), reports)
