"""Ray mode: decode tasks, rollout actors, PPO learner and Train workers around the hub."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import ray

from tats_ray.config import Config
from tats_ray.config.shares import Shares
from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.data.ray_stream import RayClipStream
from tats_ray.data.stage import BlockPlan
from tats_ray.errors import ComponentFailedError, ComponentTimeoutError
from tats_ray.rl.algorithm import MaskingPPO, RoundRequest, build_algorithm
from tats_ray.rl.versions import PolicyState, VersionedWeights
from tats_ray.runtime.backend import Finished
from tats_ray.runtime.cluster import native_stderr_to
from tats_ray.training.checkpoint import TrainingState
from tats_ray.training.hub import HubQuarantine, start_hub
from tats_ray.training.train_loop import TrainRun
from tats_ray.training.work import News, StepReport, WorkItem

_POLL_SECONDS = 2.0  # how often a wait looks whether what it waits for has died
# Fixed maskers and warm-up rounds need no autoencoder; this bounds how far the driver runs ahead.
_ITEMS_AHEAD = 4

T = TypeVar("T")


class RayBackend:
    """Rounds run ahead of the Train workers by at most `rl.staleness` steps."""

    def __init__(
        self,
        config: Config,
        plan: BlockPlan,
        quarantined: dict[str, str],
        *,
        shares: Shares,
        storage: Path,
    ) -> None:
        """Args: storage: directory for Ray Train's own bookkeeping."""
        self.config = config
        self._plan = plan
        self._quarantined = quarantined
        self._shares = shares
        self._storage = storage
        self._figures: dict[int, dict[str, float]] = {}
        self._policies: dict[int, PolicyState | None] = {}
        self._algorithm: MaskingPPO | None = None
        self._train: TrainRun | None = None
        self._news = News()

    def start(self, state: TrainingState | None, cursor: Cursor, first_step: int) -> None:
        name = f"hub-{self.config.run.name}-{uuid.uuid4().hex[:8]}"
        self._hub = start_hub(name, self._quarantined)
        if state is not None:
            ray.get(self._hub.store_snapshot.remote(state.train, False))
        train_shares = {"CPU": self._shares.train_cpus}
        if self._shares.train_gpus:
            train_shares["GPU"] = self._shares.train_gpus
        self._train = TrainRun(self.config, name, self._storage, train_shares)
        self._train.start()  # comes up while the rest is being built
        if self.config.masking.learned:
            with native_stderr_to(self._storage / "start.log"):
                self._algorithm = build_algorithm(self.config, self._shares)
            if state is not None and state.policy is not None:
                self._algorithm.load_policy_state(state.policy)
        self._stream = RayClipStream(
            self._plan,
            cursor,
            HubQuarantine(self._hub),
            decode_cpus=self._shares.decode_cpus,
            wait_seconds=self.config.cluster.wait_seconds,
        )
        self._weights(first_step)

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        return self._stream.next_batch(first, clips)

    def run_round(self, step: int, batch: ClipBatch, *, snapshot: bool) -> None:
        config = self.config
        visible = np.empty((0, config.visible), dtype=np.int64)
        policy: VersionedWeights | None = None
        if self._algorithm is not None and step >= config.masking.warmup_steps:
            started = time.monotonic()
            mae = self._weights(max(0, step - config.rl.staleness))
            waited = time.monotonic() - started
            clips = batch.rows(0, config.rollout_clips)
            outcome = self._algorithm.run_round(RoundRequest(step, clips, mae))
            visible = outcome.rollout.visible[:, 0]
            self._figures[step + 1] = outcome.figures | {"rollout/wait_seconds": waited}
            if len(visible) < len(batch):
                policy = self._algorithm.policy
        else:
            self._weights(max(0, step - _ITEMS_AHEAD))
        if snapshot:
            self._policies[step + 1] = self._policy_state()
        item = WorkItem(step, batch, visible, policy, snapshot)
        ray.get(self._hub.push.remote(item))

    def finished(self) -> Finished:
        return self._collect(until=0, seconds=0.0)

    def finish(self, step: int) -> Finished:
        self._policies[step] = self._policy_state()
        ray.get(self._hub.end.remote(step))
        assert self._train is not None, "finish comes after start"
        done = Finished()
        deadline = time.monotonic() + self.config.cluster.wait_seconds
        while not self._train.join(0.1):
            part = self._collect(until=step, seconds=_POLL_SECONDS)
            done.reports += part.reports
            done.states += part.states
            if part.reports:
                deadline = time.monotonic() + self.config.cluster.wait_seconds
            if time.monotonic() > deadline:
                raise ComponentTimeoutError(
                    f"the Train workers did not end within {self.config.cluster.wait_seconds:g} s"
                )
        part = self._collect(until=0, seconds=0.0)
        return Finished(done.reports + part.reports, done.states + part.states)

    def quarantined(self) -> dict[str, str]:
        return ray.get(self._hub.quarantined.remote())

    def close(self) -> None:
        if self._algorithm is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                self._algorithm.stop()
        if hasattr(self, "_stream"):
            self._stream.close()
        if hasattr(self, "_hub"):
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(self._hub.end.remote(0), timeout=5)
                if self._train is not None:
                    self._train.join(10)
            ray.kill(self._hub)

    def _weights(self, at_least: int) -> VersionedWeights:
        """The newest autoencoder, once it is of version `at_least`."""
        return self._until(
            lambda: ray.get(self._hub.weights.remote(at_least, _POLL_SECONDS)),
            f"version {at_least} of the autoencoder from the Train workers",
        )

    def _until(self, ask: Callable[[], T | None], what: str) -> T:
        """Asks until there is an answer, and looks at the Train run in between."""
        limit = self.config.cluster.wait_seconds
        deadline = time.monotonic() + limit
        while (answer := ask()) is None:
            self._check_train_run()
            if time.monotonic() > deadline:
                raise ComponentTimeoutError(
                    f"waited {limit:g} s (cluster.wait_seconds) for {what}; the cluster may lack "
                    "free CPUs or a worker may be stuck"
                )
        return answer

    def _check_train_run(self) -> None:
        fresh: News = ray.get(self._hub.drain.remote(0, 0.0))
        self._news.reports += fresh.reports
        self._news.states += fresh.states
        self._news.failure = self._news.failure or fresh.failure
        if self._news.failure is not None:
            raise ComponentFailedError(f"a Train worker stopped the run: {self._news.failure}")
        assert self._train is not None, "start comes first"
        if self._train.ended and self._train.error is not None:
            raise ComponentFailedError(
                f"the Train run failed after train.max_failures={self.config.train.max_failures} "
                f"restarts: {_root_cause(self._train.error)}"
            )

    def _collect(self, until: int, seconds: float) -> Finished:
        if seconds:
            fresh: News = ray.get(self._hub.drain.remote(until, seconds))
            self._news.reports += fresh.reports
            self._news.states += fresh.states
            self._news.failure = self._news.failure or fresh.failure
        self._check_train_run()
        news, self._news = self._news, News()
        reports = [
            StepReport(report.step, report.figures | self._figures.pop(report.step, {}))
            for report in news.reports
        ]
        states = [
            TrainingState(state, self._policies.pop(state.step))
            for state in news.states
            if state.step in self._policies
        ]
        return Finished(reports, states)

    def _policy_state(self) -> PolicyState | None:
        return None if self._algorithm is None else self._algorithm.policy_state()


def _root_cause(error: BaseException) -> str:
    """The first telling line of a chain of wrapped errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"
