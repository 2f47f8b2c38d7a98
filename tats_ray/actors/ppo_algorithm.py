"""RLlib's Algorithm over rollout workers and PPO learners, one iteration per call."""

from __future__ import annotations

import contextlib
import functools
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from tats_ray.actors.cluster import Resources, native_stderr_to
from tats_ray.actors.placement import as_resources
from tats_ray.actors.ppo_learner import (
    MaskingPPOLearner,
    PPOLearners,
    SamplerModule,
    UpdateRequest,
)
from tats_ray.actors.ray_compat import death_cause
from tats_ray.actors.rllib_compat import (
    actor_manager,
    learners_meet_in_a_file,
    lost_at_start,
    rollout_workers_have_labels,
)
from tats_ray.actors.rollout_collector import PROBE_SECONDS, RolloutCollector
from tats_ray.actors.rollout_worker import MaskingEnvRunner, spaces
from tats_ray.config import Config, config_from_dict
from tats_ray.data.clips import ClipBatch
from tats_ray.errors import ComponentFailedError
from tats_ray.models.state import VersionedWeights
from tats_ray.rl.rollout import Rollout, error_metrics
from tats_ray.rl.update import UpdateSummary
from tats_ray.tracking.console import log


class MaskingPPO(PPO):
    """PPO over token sets. `update` is RLlib's `train()` with input and output made explicit."""

    _request: UpdateRequest | None = None
    _summary: UpdateSummary | None = None
    _policy: VersionedWeights | None = None
    learner_group: LearnerGroup

    def setup(self, config: Any) -> None:
        super().setup(config)
        self._collector = RolloutCollector(self.settings, actor_manager(self.env_runner_group))
        self.learners = PPOLearners(self.settings, self.learner_group, self._rebuild_learners)

    def roll_out(
        self, step: int, batch: ClipBatch, mae: VersionedWeights
    ) -> tuple[Rollout, dict[str, float]]:
        """Draws and scores token sets of all clips, with the metrics of that; errors as
        `RolloutCollector.collect`."""
        started = time.monotonic()
        rollout = self._collector.collect(step, batch, self.policy, mae)
        for failure in self._collector.failures:
            log(f"step {step + 1}: {failure}; its clips went to other workers")
        return rollout, error_metrics(rollout.error.mean()) | {
            "rollout/staleness": float(step - rollout.mae_version),
            "rollout/seconds": time.monotonic() - started,
            "rollout/workers": float(self.env_runner_group.num_healthy_remote_workers()),
            "rollout/failures": float(len(self._collector.failures)),
        }

    def resize(self, workers: int) -> None:
        """Starts further rollout workers, or ends the last ones; between two iterations, so that
        no clip is lost. New ones get clips once they answer, which takes them seconds, or as long
        as the cluster needs to find room for them."""
        manager = actor_manager(self.env_runner_group)
        known = manager.actor_ids()
        for worker in known[workers:]:
            ray.kill(manager.remove_actor(worker))
        if workers > len(known):
            self.env_runner_group.add_workers(workers - len(known))
        for worker in set(manager.actor_ids()) - set(known):
            manager.set_actor_state(worker, healthy=False)  # until its first answer

    def update(self, request: UpdateRequest) -> UpdateSummary:
        """Updates the sampler on rollouts, and looks after lost rollout workers.

        Raises:
            ComponentFailedError: learners kept dying; carries the last cause.
            NonFiniteError: PPO diverged.
        """
        self._request, self._summary = request, None
        self.train()
        assert self._summary is not None, "training_step sets the summary or raises"
        return self._summary

    def training_step(self) -> None:
        assert self._request is not None, "use update"
        started = time.monotonic()
        summary = self.learners.update(self._request)
        seconds = {"ppo/seconds": time.monotonic() - started}
        metrics = summary.metrics | seconds | self.learners.metrics()
        self._summary = UpdateSummary(metrics, summary.skipped)

    @functools.cached_property
    def settings(self) -> Config:
        """The run's configuration."""
        return config_from_dict(self.config.env_config["config"])

    @property
    def policy(self) -> VersionedWeights:
        """The newest sampler, put into the object store once per version."""
        version = self.learners.version
        if self._policy is None or self._policy.version != version:
            self._policy = VersionedWeights(version, ray.put(self.learners.weights()))
        return self._policy

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Restarted workers need no state: every request brings the versions it wants."""
        return env_runner_group.probe_unhealthy_env_runners()

    def _rebuild_learners(self) -> LearnerGroup:
        """Raises: RayActorError: a learner died as it started."""
        self.learner_group.shutdown()
        spec = self.config.get_multi_rl_module_spec(
            spaces={DEFAULT_MODULE_ID: spaces(self.settings)}
        )
        with _meeting(self.settings), _deaths_named():
            self.learner_group = self.config.build_learner_group(rl_module_spec=spec)
        return self.learner_group


@contextlib.contextmanager
def ppo_algorithm(
    settings: Config,
    resources: Resources,
    errors: Path,
    worker: type[MaskingEnvRunner] = MaskingEnvRunner,
) -> Iterator[MaskingPPO]:
    """Rollout workers, learners and the Algorithm over them; ended with the block.

    Args:
        errors: file for what native code writes to stderr meanwhile.
        worker: class of the rollout workers.
    """
    algorithm = _build(_algorithm_config(settings, resources, worker), settings, errors)
    try:
        yield algorithm
    finally:
        with contextlib.suppress(ray.exceptions.RayError):
            algorithm.stop()


def _build(config: PPOConfig, settings: Config, errors: Path) -> MaskingPPO:
    """The Algorithm, built anew where one of its processes dies meanwhile."""
    limit, restarts = settings.train.max_failures, 0
    place = settings.cluster.placement.rollout
    labels = {} if place is None else place.labels
    while True:
        try:
            with (
                _meeting(settings),
                rollout_workers_have_labels(labels),
                native_stderr_to(errors),
                _deaths_named(),
            ):
                return config.copy().build_algo()
        except ray.exceptions.RayActorError as error:
            cause = death_cause(error)
        if restarts == limit:
            raise ComponentFailedError(
                f"rollout workers or PPO learners died as they started, after train.max_failures="
                f"{limit} restarts: {cause}"
            )
        restarts += 1
        log(f"a rollout worker or PPO learner died as it started ({cause}); "
            f"restart {restarts} of {limit}")  # fmt: skip
        gc.collect()  # ends the others, whose handles the failed Algorithm holds in circles


@contextlib.contextmanager
def _deaths_named() -> Iterator[None]:
    """Around RLlib's start of processes: raises the death of one as what it is."""
    try:
        yield
    except Exception as error:
        if (lost := lost_at_start(error)) is not None:
            raise lost from None
        raise


def _algorithm_config(
    settings: Config, resources: Resources, worker: type[MaskingEnvRunner]
) -> PPOConfig:
    """RLlib's settings. Its connectors, its advantages and its loop over minibatches stay unused:
    they double a one-step bandit's observations, bias its advantages and hide divergence."""
    plain, place = settings.model_dump(), settings.cluster.placement
    observations, actions = spaces(settings)
    return (
        PPOConfig(algo_class=MaskingPPO)
        .environment(
            env=None,
            observation_space=observations,
            action_space=actions,
            env_config={"config": plain},
        )
        .env_runners(
            env_runner_cls=worker,
            num_env_runners=settings.rollout_workers,
            num_cpus_per_env_runner=resources.runner_cpus,
            num_gpus_per_env_runner=resources.runner_gpus,
            custom_resources_per_env_runner=as_resources(place.rollout),
            create_local_env_runner=False,
        )
        .learners(
            learner_class=MaskingPPOLearner,
            num_learners=settings.rl.learners,
            num_cpus_per_learner=resources.learner_cpus,
            num_gpus_per_learner=resources.learner_gpus,
            custom_resources_per_learner=as_resources(place.learner),
            add_default_connectors_to_learner_pipeline=False,
        )
        .debugging(log_level="ERROR")
        .rl_module(
            rl_module_spec=RLModuleSpec(module_class=SamplerModule, model_config={"config": plain})
        )
        .reporting(min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=None)
        .fault_tolerance(
            restart_failed_env_runners=True,
            max_num_env_runner_restarts=settings.rl.max_worker_restarts,
            env_runner_health_probe_timeout_s=PROBE_SECONDS,
        )
    )


def _meeting(settings: Config) -> contextlib.AbstractContextManager[None]:
    """Around the start of learners: where they meet."""
    return (
        learners_meet_in_a_file() if settings.cluster.mode == "local" else contextlib.nullcontext()
    )
