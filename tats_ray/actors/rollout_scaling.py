"""How many rollout workers a run has: what was asked for by hand, or what the load needs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tats_ray.actors.hub import HubClient
from tats_ray.actors.ppo_algorithm import MaskingPPO
from tats_ray.config import Config
from tats_ray.config.rl import WorkerRange
from tats_ray.rl.worker_scaling import WorkerScaler
from tats_ray.tracking.console import log


class RolloutScaling:
    """Resizes the group of rollout workers between two iterations, where somebody asks for it or
    the load does. Who asks by hand has the last word: the load is not looked at any more."""

    def __init__(self, config: Config, hub: HubClient, algorithm: MaskingPPO) -> None:
        self._hub = hub
        self._algorithm = algorithm
        self._wanted = config.rollout_workers
        self._scaler: WorkerScaler | None = None
        bounds = config.rl.rollout_workers
        if isinstance(bounds, WorkerRange):
            chunks = math.ceil(config.rollout_clips / config.rl.rollout_clips)
            self._scaler = WorkerScaler(bounds.min, max(bounds.min, min(bounds.max, chunks)))

    def before(self, step: int) -> None:
        """Follows what was asked for since the last iteration."""
        asked = self._hub.workers_asked_for()
        if asked is not None and asked != self._wanted:
            self._scaler = None
            self._resize(step, asked, "as asked")

    def after(self, step: int, metrics: Mapping[str, float]) -> None:
        """Follows the load of an iteration.

        Args:
            metrics: of its rollouts.
        """
        workers = int(metrics["rollout/workers"])
        if self._scaler is None:
            return
        waited, rolled_out = metrics["rollout/wait_seconds"], metrics["rollout/seconds"]
        wanted = self._scaler.decide(workers, waited, rolled_out)
        if wanted != workers and workers == self._wanted:  # else some are still to come
            why = "training waits for rollouts" if wanted > workers else "rollouts wait"
            self._resize(step, wanted, why)

    def _resize(self, step: int, wanted: int, why: str) -> None:
        log(f"step {step + 1}: rollout workers {self._wanted} -> {wanted}, {why}")
        self._wanted = wanted
        self._algorithm.resize(wanted)
