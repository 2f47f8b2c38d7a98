"""Ray mode: decode tasks, rollout workers, PPO learners and Train workers around the hub."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import numpy as np

from tats_ray.actors.cluster import Resources
from tats_ray.actors.cluster_watch import leave_if_lost
from tats_ray.actors.decode_stream import RayClipStream
from tats_ray.actors.hub import HubClient, TrainerEvents, WorkItem, running_hub
from tats_ray.actors.object_store import ITEMS_AHEAD
from tats_ray.actors.ppo_algorithm import MaskingPPO, ppo_algorithm
from tats_ray.actors.ppo_learner import UpdateRequest
from tats_ray.actors.requests import open_to_requests
from tats_ray.actors.rollout_scaling import RolloutScaling
from tats_ray.actors.train_run import TrainRun, train_run
from tats_ray.actors.train_worker import WorkerPlan
from tats_ray.controller.executor import Completed, ExecutorLostError, StartingPoint, Task
from tats_ray.data.clips import ClipBatch
from tats_ray.errors import Fault
from tats_ray.models.state import VersionedWeights
from tats_ray.rl.learner import PolicyState
from tats_ray.rl.rollout import Rollout
from tats_ray.training.checkpoint import RunState
from tats_ray.training.pretraining_model import build_policy
from tats_ray.training.reports import StepReport


class RayExecutor:
    """Iterations run ahead of the Train workers: by at most `rl.staleness` steps where rollouts
    need the newest autoencoder, else by a few batches."""

    def __init__(
        self, task: Task, workers: TrainRun, stream: RayClipStream, algorithm: MaskingPPO | None
    ) -> None:
        self.workers = workers
        self.stream = stream
        self.algorithm = algorithm
        self._scaling: RolloutScaling | None = None
        if algorithm is not None and task.rollouts is not None and task.rollouts.rollout_workers:
            self._scaling = RolloutScaling(task.rollouts, workers.hub, algorithm)
        self._task = task
        self._mae: VersionedWeights | None = None  # that scored the newest rollouts
        self._unlearned: deque[tuple[int, ClipBatch]] = deque()  # steps that score their own draws
        self._metrics: dict[int, dict[str, float]] = {}  # by the number of finished steps
        self._skipped: dict[int, list[Fault]] = {}
        self._wanted: dict[int, PolicyState | None] = {}  # policies of the states asked for

    def next_batch(self, step: int) -> ClipBatch:
        size = self._task.config.train.batch_size
        return self.stream.next_batch(step * size, size)

    def roll_out(self, step: int, batch: ClipBatch) -> Rollout | None:
        config = self._task.rollouts
        if config is None or not self._task.draws(step) or config.trained_on_own_errors:
            self.workers.weights(max(0, step - ITEMS_AHEAD))
            return None
        assert self.algorithm is not None, "rollouts are a matter of RLlib's workers"
        assert self._scaling is not None, "a run with rollouts has rollout workers"
        self._scaling.before(step)
        started = time.monotonic()
        self._mae = self.workers.weights(max(0, step - config.rl.staleness))
        waited = time.monotonic() - started
        clips = batch.rows(0, config.rollout_clips)
        rollout, metrics = self.algorithm.roll_out(step, clips, self._mae)
        self._metrics[step + 1] = metrics = metrics | {"rollout/wait_seconds": waited}
        self._scaling.after(step, metrics)
        return rollout

    def update_policy(self, step: int, batch: ClipBatch, rollout: Rollout | None) -> None:
        if rollout is None or self.algorithm is None:
            return
        clips = batch.rows(0, len(rollout))
        self._update(step, UpdateRequest(step, clips, rollout, self._mae))

    def train(
        self, step: int, batch: ClipBatch, rollout: Rollout | None, *, snapshot: bool
    ) -> None:
        visible: np.ndarray | None = None
        policy: VersionedWeights | None = None
        if self.algorithm is not None and self._task.draws(step):
            visible = None if rollout is None else rollout.visible[:, 0].numpy()
            complete = visible is not None and len(visible) == len(batch)
            policy = None if complete else self.algorithm.policy
        self.workers.push(WorkItem(step, batch, snapshot, visible, policy))

    def learn_from_training(self, step: int, batch: ClipBatch) -> None:
        config = self._task.rollouts
        if config is None or not config.trained_on_own_errors or not self._task.draws(step):
            return
        self._unlearned.append((step, batch))
        self._learn(step, behind=config.rl.staleness)

    def keep_state(self, step: int) -> None:
        self._learn(step - 1, behind=0)
        self._wanted[step] = self._policy_state()

    def completed(self) -> Completed:
        return self._completed(self.workers.events())

    def finish(self, step: int) -> Completed:
        self.keep_state(step)
        return self._completed(self.workers.finish(step))

    def quarantined(self) -> Mapping[str, str]:
        return self.workers.hub.known()

    def _completed(self, events: TrainerEvents) -> Completed:
        """The Train workers' events with what belongs to their steps here; each wanted state once,
        though a replay or the end may bring it again."""
        reports = [
            StepReport(
                report.step,
                report.metrics | self._metrics.pop(report.step, {}),
                report.skipped + self._skipped.pop(report.step, []),
            )
            for report in events.reports
        ]
        states = [
            RunState(state, self._wanted.pop(state.step))
            for state in events.states
            if state.step in self._wanted
        ]
        return Completed(reports, states)

    def _learn(self, step: int, behind: int) -> None:
        """Updates the sampler on what training steps scored, but for the last `behind` of them."""
        while len(self._unlearned) > behind:
            scored, batch = self._unlearned.popleft()
            rollout = self.workers.rollout(scored)
            self._metrics.setdefault(step + 1, {})["rollout/staleness"] = float(step - scored)
            self._update(step, UpdateRequest(scored, batch, rollout, None))

    def _update(self, step: int, request: UpdateRequest) -> None:
        """One update of the sampler, reported with a step."""
        assert self.algorithm is not None, "only a learned system is updated"
        summary = self.algorithm.update(request)
        self._metrics[step + 1] |= summary.metrics
        self._skipped.setdefault(step + 1, []).extend(summary.skipped)

    def _policy_state(self) -> PolicyState | None:
        return None if self.algorithm is None else self.algorithm.learners.state()


@contextmanager
def on_ray(task: Task, start: StartingPoint, resources: Resources) -> Iterator[RayExecutor]:
    """An executor on the connected cluster; everything that it starts ends with the block.

    Raises:
        ExecutorLostError: what the block met when the hub was dead.
    """
    name = f"hub-{task.config.run.name}-{uuid.uuid4().hex[:8]}"
    with ExitStack() as parts:
        hub = parts.enter_context(running_hub(name, start.quarantined))
        try:
            executor = _started(task, start, resources, hub, name, parts)
            workers = 0 if task.rollouts is None else task.rollouts.rollout_workers
            local = task.config.cluster.mode == "local"
            with open_to_requests(start.storage, name, workers, local=local):
                yield executor
        except Exception as error:
            leave_if_lost()
            if hub.is_dead():
                raise ExecutorLostError(str(error)) from error
            raise


def _started(
    task: Task,
    start: StartingPoint,
    resources: Resources,
    hub: HubClient,
    name: str,
    parts: ExitStack,
) -> RayExecutor:
    """The executor once all its parts are up; they end with `parts`."""
    rollouts, state = task.rollouts, start.state
    if state is not None:
        hub.store_snapshot(state.trainer, False, [])
    build_sampler = None if rollouts is None else partial(build_policy, rollouts)
    plan = WorkerPlan(task.config, task.build_trainer, build_sampler)
    train = train_run(hub, name, plan, resources, start.storage)
    workers = parts.enter_context(train)  # they come up meanwhile
    algorithm = None
    if rollouts is not None:
        errors = start.storage / "start.log"
        algorithm = parts.enter_context(ppo_algorithm(rollouts, resources, errors))
        if state is not None and state.policy is not None:
            algorithm.learners.load(state.policy)
    stream = RayClipStream(
        task.plan,
        start.progress.cursor,
        hub,
        decode_cpus=resources.decode_cpus,
        placed=task.config.cluster.placement.decode,
        wait_seconds=task.config.cluster.wait_seconds,
        clips=(task.config.train.steps - start.progress.step) * task.config.train.batch_size,
    )
    parts.enter_context(closing(stream))
    workers.weights(start.progress.step)
    return RayExecutor(task, workers, stream, algorithm)
