"""Ray mode: decode tasks, rollout actors, PPO learner and Train workers around the hub."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import ray

from tats_ray.actors.cluster import native_stderr_to
from tats_ray.actors.decode_stream import RayClipStream
from tats_ray.actors.hub import HubQuarantine
from tats_ray.actors.mae_worker import mae_worker
from tats_ray.actors.object_store import ITEMS_AHEAD
from tats_ray.actors.ppo_algorithm import MaskingPPO, RoundRequest, build_algorithm
from tats_ray.actors.train_link import TrainLink
from tats_ray.config import Config
from tats_ray.config.shares import Shares
from tats_ray.controller.executor import Finished
from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.data.stage import BlockPlan
from tats_ray.models.nonfinite import Fault
from tats_ray.rl.versions import PolicyState, VersionedWeights
from tats_ray.tracking.console import say
from tats_ray.training.checkpoint import TrainingState
from tats_ray.training.work import News, StepReport, WorkItem


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
        self._skipped: dict[int, list[Fault]] = {}
        self._policies: dict[int, PolicyState | None] = {}
        self._algorithm: MaskingPPO | None = None

    def start(self, state: TrainingState | None, cursor: Cursor, first_step: int) -> None:
        snapshot = None if state is None else state.train
        self._link = TrainLink(self.config, self._quarantined, snapshot)
        self._link.start(mae_worker, self._storage, self._shares)  # comes up meanwhile
        if self.config.learns_by_rollouts:
            with native_stderr_to(self._storage / "start.log"):
                self._algorithm = build_algorithm(self.config, self._shares)
            if state is not None and state.policy is not None:
                self._algorithm.load_policy_state(state.policy)
        self._stream = RayClipStream(
            self._plan,
            cursor,
            HubQuarantine(self._link.hub),
            decode_cpus=self._shares.decode_cpus,
            wait_seconds=self.config.cluster.wait_seconds,
        )
        self._link.weights(first_step)

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        return self._stream.next_batch(first, clips)

    def run_round(self, step: int, batch: ClipBatch, *, snapshot: bool) -> None:
        config = self.config
        visible = np.empty((0, config.visible), dtype=np.int64)
        policy: VersionedWeights | None = None
        if self._algorithm is not None and step >= config.sampler_warmup_steps:
            started = time.monotonic()
            mae = self._link.weights(max(0, step - config.rl.staleness))
            waited = time.monotonic() - started
            clips = batch.rows(0, config.rollout_clips)
            outcome = self._algorithm.run_round(RoundRequest(step, clips, mae))
            for failure in outcome.failures:
                say(f"step {step + 1}: {failure}; its clips went to others")
            visible = outcome.rollout.visible[:, 0]
            self._figures[step + 1] = outcome.figures | {"rollout/wait_seconds": waited}
            self._skipped[step + 1] = outcome.skipped
            if len(visible) < len(batch):
                policy = self._algorithm.policy
        else:
            self._link.weights(max(0, step - ITEMS_AHEAD))
        if snapshot:
            self._policies[step + 1] = self._policy_state()
        self._link.push(WorkItem(step, batch, visible, policy, snapshot))

    def finished(self) -> Finished[TrainingState]:
        return self._finished(self._link.news())

    def finish(self, step: int) -> Finished[TrainingState]:
        self._policies[step] = self._policy_state()
        return self._finished(self._link.finish(step))

    def quarantined(self) -> dict[str, str]:
        return self._link.quarantined()

    def is_lost(self) -> bool:
        return hasattr(self, "_link") and self._link.hub_is_dead()

    def close(self) -> None:
        if self._algorithm is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                self._algorithm.stop()
        if hasattr(self, "_stream"):
            self._stream.close()
        if hasattr(self, "_link"):
            self._link.close()

    def _finished(self, news: News) -> Finished[TrainingState]:
        """The Train workers' news with what belongs to their steps here."""
        reports = [
            StepReport(
                report.step,
                report.figures | self._figures.pop(report.step, {}),
                report.skipped + self._skipped.pop(report.step, []),
            )
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
