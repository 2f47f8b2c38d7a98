"""Collects an iteration's rollouts from workers that may fail, die or stall on the way."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.rllib.utils.actor_manager import FaultTolerantActorManager

from tats_ray.actors.ray_compat import death_cause
from tats_ray.actors.rollout_worker import RolloutReply
from tats_ray.config import Config
from tats_ray.data.clips import ClipBatch
from tats_ray.errors import ComponentFailedError, ComponentTimeoutError, StaleRolloutError
from tats_ray.models.state import VersionedWeights
from tats_ray.rl.rollout import Rollout, join_rollouts

PROBE_SECONDS = 0.2  # that an iteration waits for each look at whether lost workers are back


class RolloutCollector:
    """Hands the chunks of a batch to the healthy workers; chunks of a lost, failing or
    stalled one go to the others, and a stalled one is replaced. Only whole chunks are taken.

    Attributes:
        failures: reasons of the last iteration, in order.
    """

    def __init__(self, config: Config, manager: FaultTolerantActorManager) -> None:
        self._config = config
        self._manager = manager
        self.failures: list[str] = []

    def collect(
        self, step: int, batch: ClipBatch, policy: VersionedWeights, mae: VersionedWeights
    ) -> Rollout:
        """Rollouts of all clips of step `step`, with the named versions.

        Raises:
            ComponentFailedError: more than `rl.max_worker_restarts` failures in one iteration;
                carries the last cause.
            ComponentTimeoutError: no worker became available within `cluster.wait_seconds`.
            StaleRolloutError: a worker used an older autoencoder than `rl.staleness` permits.
            RuntimeError: a mistake in the code that workers run, with its traceback.
        """
        self.failures = []
        size, total = self._config.rl.rollout_clips, len(batch)
        missing = {
            batch.first + start: batch.rows(start, min(start + size, total))
            for start in range(0, total, size)
        }
        done: list[Rollout] = []
        while missing:
            workers = self._wait_for_workers()
            requests = {
                worker: {"chunks": chunks, "policy": policy, "mae": mae}
                for place, worker in enumerate(workers)
                if (chunks := list(missing.values())[place :: len(workers)])
            }
            for rollout in self._ask(requests):
                if missing.pop(rollout.first, None) is not None:
                    _check_fresh(rollout, step, self._config.rl.staleness)
                    done.append(rollout)
            self._check_failures()
        return join_rollouts(sorted(done, key=lambda rollout: rollout.first))

    def _wait_for_workers(self) -> list[int]:
        limit = self._config.cluster.wait_seconds
        deadline = time.monotonic() + limit
        while not (workers := self._manager.healthy_actor_ids()):
            for result in self._manager.foreach_actor(
                "ping", healthy_only=False, mark_healthy=True, timeout_seconds=PROBE_SECONDS
            ):
                self._record(result)
            self._check_failures()
            if time.monotonic() > deadline:
                cause = self.failures[-1] if self.failures else "they may find no free CPU"
                raise ComponentTimeoutError(
                    f"no rollout worker became available within {limit:g} s "
                    f"(cluster.wait_seconds): {cause}"
                )
        return workers

    def _ask(self, requests: dict[int, dict[str, Any]]) -> list[Rollout]:
        """One call to every worker with its chunks; records every failure."""
        results = self._manager.foreach_actor(
            ["sample"] * len(requests),
            kwargs=list(requests.values()),
            remote_actor_ids=list(requests),
            timeout_seconds=self._config.rl.rollout_seconds,
        )
        for worker in sorted(requests.keys() - {result.actor_id for result in results}):
            self._replace(worker)
        replies = [self._record(result) for result in results]
        return [rollout for reply in replies if reply for rollout in reply.rollouts]

    def _record(self, result: Any) -> Any:
        """A worker's answer, None where the worker was lost; remembers the reason."""
        answer = result.get()
        reason = answer.failure if isinstance(answer, RolloutReply) else None
        if isinstance(answer, RolloutReply) and answer.mistake:
            raise RuntimeError(f"rollout worker {result.actor_id}: {answer.mistake}")
        if not result.ok:
            reason = death_cause(answer)
        if reason is not None:
            self.failures.append(f"rollout worker {result.actor_id}: {reason}")
        return answer if result.ok else None

    def _check_failures(self) -> None:
        if len(self.failures) > self._config.rl.max_worker_restarts:
            raise ComponentFailedError(f"rollouts keep failing: {self.failures[-1]}")

    def _replace(self, worker: int) -> None:
        """Ray starts a killed actor anew; its late answer is nobody's."""
        ray.kill(self._manager.actors()[worker], no_restart=False)
        self._manager.set_actor_state(worker, healthy=False)
        self.failures.append(
            f"rollout worker {worker} did not answer within rl.rollout_seconds="
            f"{self._config.rl.rollout_seconds:g} and was replaced"
        )


def _check_fresh(rollout: Rollout, step: int, staleness: int) -> None:
    if rollout.mae_version < step - staleness:
        raise StaleRolloutError(
            f"step {step}: a rollout was scored by autoencoder {rollout.mae_version}, "
            f"older than rl.staleness={staleness} permits"
        )
