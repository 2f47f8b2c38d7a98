"""Collects a round's rollouts from actors that may fail, die or stall on the way."""

from __future__ import annotations

import time
from typing import Any

import ray

from tats_ray.actors.rollout_worker import RolloutReply
from tats_ray.config import Config
from tats_ray.data.clips import ClipBatch
from tats_ray.errors import ComponentFailedError, ComponentTimeoutError, StaleRolloutError
from tats_ray.rl.rollout import Rollout, join_rollouts
from tats_ray.rl.versions import VersionedWeights

PROBE_SECONDS = 0.2  # that a round waits for each look at whether lost actors are back


class RolloutCollector:
    """Hands the parts of a round to the healthy actors; what a lost, failing or stalled one leaves
    is asked of the others, and a stalled one is replaced. Only whole parts are taken.

    Attributes:
        failures: reasons of the last round, in order.
    """

    def __init__(self, settings: Config, group: Any) -> None:
        """Args: group: RLlib's EnvRunnerGroup."""
        self._settings = settings
        self._group = group
        # The group's public calls hide which actor failed, and why.
        self._manager = group._worker_manager
        self.failures: list[str] = []

    def collect(
        self, step: int, batch: ClipBatch, policy: VersionedWeights, mae: VersionedWeights
    ) -> Rollout:
        """Rollouts of all clips of round `step`, with the named versions.

        Raises:
            ComponentFailedError: more than `rl.max_runner_restarts` failures in one round; carries
                the last cause.
            ComponentTimeoutError: no actor was there for `cluster.wait_seconds`.
            StaleRolloutError: an actor used an older autoencoder than `rl.staleness` permits.
        """
        self.failures = []
        size, total = self._settings.rl.rollout_clips, len(batch)
        missing = {
            batch.first + start: batch.rows(start, min(start + size, total))
            for start in range(0, total, size)
        }
        done: list[Rollout] = []
        while missing:
            runners = self._wait_for_runners()
            shares = {
                runner: {"parts": part, "policy": policy, "mae": mae}
                for place, runner in enumerate(runners)
                if (part := list(missing.values())[place :: len(runners)])
            }
            for rollout in self._ask(shares):
                if missing.pop(rollout.first, None) is not None:
                    _check_fresh(rollout, step, self._settings.rl.staleness)
                    done.append(rollout)
            self._check_failures()
        return join_rollouts(sorted(done, key=lambda rollout: rollout.first))

    def _wait_for_runners(self) -> list[int]:
        limit = self._settings.cluster.wait_seconds
        deadline = time.monotonic() + limit
        while not (runners := self._manager.healthy_actor_ids()):
            for result in self._manager.foreach_actor(
                "ping", healthy_only=False, mark_healthy=True, timeout_seconds=PROBE_SECONDS
            ):
                self._note(result)
            self._check_failures()
            if time.monotonic() > deadline:
                cause = self.failures[-1] if self.failures else "they may find no free CPU"
                raise ComponentTimeoutError(
                    f"no rollout actor was there for {limit:g} s (cluster.wait_seconds): {cause}"
                )
        return runners

    def _ask(self, shares: dict[int, dict[str, Any]]) -> list[Rollout]:
        """One call to every actor with its share; notes every failure."""
        results = self._manager.foreach_actor(
            ["sample"] * len(shares),
            kwargs=list(shares.values()),
            remote_actor_ids=list(shares),
            timeout_seconds=self._settings.rl.rollout_seconds,
        )
        for actor in sorted(shares.keys() - {result.actor_id for result in results}):
            self._replace(actor)
        replies = [self._note(result) for result in results]
        return [rollout for reply in replies if reply for rollout in reply.rollouts]

    def _note(self, result: Any) -> Any:
        """An actor's answer, None where it failed; remembers the reason."""
        answer = result.get()
        reason = answer.failure if isinstance(answer, RolloutReply) else None
        if not result.ok:
            reason = death_cause(answer)
        if reason is not None:
            self.failures.append(f"rollout actor {result.actor_id}: {reason}")
        return answer if result.ok else None

    def _check_failures(self) -> None:
        if len(self.failures) > self._settings.rl.max_runner_restarts:
            raise ComponentFailedError(f"rollouts keep failing: {self.failures[-1]}")

    def _replace(self, actor: int) -> None:
        """Ray starts a killed actor anew; its late answer is nobody's."""
        ray.kill(self._manager.actors()[actor], no_restart=False)
        self._manager.set_actor_state(actor, healthy=False)
        self.failures.append(
            f"rollout actor {actor} did not answer within rl.rollout_seconds="
            f"{self._settings.rl.rollout_seconds:g} and was replaced"
        )


def death_cause(error: Exception) -> str:
    """What Ray says of a lost actor, in one line, without its guesses."""
    return " ".join(str(error).split()).split(" Some common causes", maxsplit=1)[0]


def _check_fresh(rollout: Rollout, step: int, staleness: int) -> None:
    if rollout.mae_version < step - staleness:
        raise StaleRolloutError(
            f"round {step}: a rollout was scored by autoencoder {rollout.mae_version}, "
            f"older than rl.staleness={staleness} permits"
        )
