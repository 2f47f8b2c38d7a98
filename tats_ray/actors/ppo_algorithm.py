"""RLlib's Algorithm as the driver of rollouts and PPO updates, one round per call."""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from tats_ray.actors.file_rendezvous import learners_on_loopback
from tats_ray.actors.ppo_learner import LearnerRound, MaskingPPOLearner
from tats_ray.actors.ppo_learners import PPOLearners
from tats_ray.actors.ppo_module import SamplerModule
from tats_ray.actors.rollout_collector import PROBE_SECONDS, RolloutCollector
from tats_ray.actors.rollout_worker import MaskingEnvRunner
from tats_ray.config import Config, config_from_dict
from tats_ray.config.shares import Shares
from tats_ray.data.clips import ClipBatch
from tats_ray.models.nonfinite import Fault
from tats_ray.rl.gym_environment import action_space, observation_space
from tats_ray.rl.rollout import Rollout
from tats_ray.rl.versions import PolicyState, VersionedWeights


@dataclass(frozen=True)
class RoundRequest:
    """Clips to roll out in round `step`, and the autoencoder that scores them."""

    step: int
    batch: ClipBatch
    mae: VersionedWeights


@dataclass(frozen=True)
class RoundOutcome:
    rollout: Rollout
    figures: dict[str, float]
    skipped: list[Fault]
    failures: list[str]  # of rollout actors; what they left was asked of others


class MaskingPPO(PPO):
    """PPO over token sets. `run_round` is `train()` with its input and output made explicit."""

    _request: RoundRequest | None = None
    _outcome: RoundOutcome | None = None
    _policy: VersionedWeights | None = None
    learner_group: Any

    def setup(self, config: Any) -> None:
        super().setup(config)
        self._collector = RolloutCollector(self.settings, self.env_runner_group)
        self._learners = PPOLearners(self.settings, self.learner_group, self._rebuild_learners)

    def run_round(self, request: RoundRequest) -> RoundOutcome:
        """Rolls out the clips, updates the sampler, and publishes its next version.

        Raises:
            ComponentTimeoutError: no rollout actor was there for `cluster.wait_seconds`.
            ComponentFailedError: rollouts kept failing, or learners kept dying; carries the last
                cause.
            NonFiniteError: PPO diverged.
        """
        self._request, self._outcome = request, None
        self.train()
        assert self._outcome is not None, "training_step sets the outcome or raises"
        return self._outcome

    def training_step(self) -> None:
        request = self._request
        assert request is not None, "use run_round"
        started = time.monotonic()
        rollout = self._collector.collect(request.step, request.batch, self.policy, request.mae)
        collected = time.monotonic()
        summary = self._learners.update(
            LearnerRound(request.step, request.batch, rollout, request.mae)
        )
        figures = summary.figures | rollout.error_figures()
        figures |= {
            "rollout/mae_lag": float(request.step - rollout.mae_version),
            "rollout/seconds": collected - started,
            "rollout/runners": float(self.env_runner_group.num_healthy_remote_workers()),
            "rollout/failures": float(len(self._collector.failures)),
            "ppo/seconds": time.monotonic() - collected,
        }
        figures |= self._learners.figures()
        failures = list(self._collector.failures)
        self._outcome = RoundOutcome(rollout, figures, summary.skipped, failures)

    @functools.cached_property
    def settings(self) -> Config:
        """The run's configuration."""
        return config_from_dict(self.config.env_config["config"])

    @property
    def policy(self) -> VersionedWeights:
        """The newest sampler, put into the object store once per version."""
        version = self._learners.version
        if self._policy is None or self._policy.version != version:
            self._policy = VersionedWeights(version, ray.put(self._learners.weights()))
        return self._policy

    def policy_state(self) -> PolicyState:
        """Sampler and optimiser for a checkpoint."""
        return self._learners.state()

    def load_policy_state(self, state: PolicyState) -> None:
        """Continues from a checkpoint."""
        self._learners.load(state)
        self._policy = None

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Restarted runners need no state: every request brings the versions it wants."""
        return env_runner_group.probe_unhealthy_env_runners()

    def _rebuild_learners(self) -> Any:
        self.learner_group.shutdown()
        spec = self.config.get_multi_rl_module_spec(
            spaces={
                DEFAULT_MODULE_ID: (observation_space(self.settings), action_space(self.settings))
            }
        )
        with _meeting(self.settings):
            self.learner_group = self.config.build_learner_group(rl_module_spec=spec)
        return self.learner_group


def build_algorithm(settings: Config, shares: Shares) -> MaskingPPO:
    """Env runners, learners and the Algorithm over them, started on the cluster."""
    plain = settings.model_dump()
    config = (
        PPOConfig(algo_class=MaskingPPO)
        .environment(
            env=None,
            observation_space=observation_space(settings),
            action_space=action_space(settings),
            env_config={"config": plain},
        )
        .env_runners(
            env_runner_cls=MaskingEnvRunner,
            num_env_runners=settings.rl.env_runners,
            num_cpus_per_env_runner=shares.runner_cpus,
            num_gpus_per_env_runner=shares.runner_gpus,
            create_local_env_runner=False,
        )
        .learners(
            learner_class=MaskingPPOLearner,
            num_learners=settings.rl.learners,
            num_cpus_per_learner=shares.learner_cpus,
            num_gpus_per_learner=shares.learner_gpus,
            add_default_connectors_to_learner_pipeline=False,
        )
        .debugging(log_level="ERROR")
        .rl_module(
            rl_module_spec=RLModuleSpec(module_class=SamplerModule, model_config={"config": plain})
        )
        .training(
            use_kl_loss=False,
            train_batch_size_per_learner=settings.learner_clips,
            minibatch_size=settings.learner_minibatch_clips,
            num_epochs=settings.rl.epochs,
        )
        .reporting(min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=None)
        .fault_tolerance(
            restart_failed_env_runners=True,
            max_num_env_runner_restarts=settings.rl.max_runner_restarts,
            env_runner_health_probe_timeout_s=PROBE_SECONDS,
        )
    )
    with _meeting(settings):
        return config.build_algo()


def _meeting(settings: Config) -> contextlib.AbstractContextManager[None]:
    """Around the start of learners: where they meet."""
    return learners_on_loopback() if settings.cluster.mode == "local" else contextlib.nullcontext()
