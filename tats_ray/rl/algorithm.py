"""RLlib's Algorithm as the driver of rollouts and PPO updates, one round per call."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from tats_ray.config import Config, config_from_dict
from tats_ray.config.shares import Shares
from tats_ray.data.clips import ClipBatch
from tats_ray.errors import ComponentFailedError, ComponentTimeoutError, StaleRolloutError
from tats_ray.models.nonfinite import Fault
from tats_ray.rl.env_runner import MaskingEnvRunner, RolloutReply
from tats_ray.rl.gym_environment import action_space, observation_space
from tats_ray.rl.learner import LearnerRound, MaskingPPOLearner
from tats_ray.rl.module import SamplerModule
from tats_ray.rl.rollout import Rollout, join_rollouts
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


class MaskingPPO(PPO):
    """PPO over token sets. `run_round` is `train()` with its input and output made explicit."""

    _request: RoundRequest | None = None
    _outcome: RoundOutcome | None = None
    _policy: VersionedWeights | None = None
    _policy_version: int = 0

    def run_round(self, request: RoundRequest) -> RoundOutcome:
        """Rolls out the clips, updates the sampler, and publishes its next version.

        Raises:
            ComponentTimeoutError: rollouts took longer than `rl.rollout_seconds`.
            ComponentFailedError: rollouts kept failing; carries the last cause.
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
        rollout = self._collect(request)
        collected = time.monotonic()
        job = LearnerRound(request.step, request.batch, rollout, request.mae)
        summary = self._on_learners(MaskingPPOLearner.update_round, job=job)
        self._policy_version += 1
        self._policy = None
        figures = summary.figures | rollout.error_figures()
        figures |= {
            "rollout/mae_lag": float(request.step - rollout.mae_version),
            "rollout/seconds": collected - started,
            "rollout/runners": float(self.env_runner_group.num_healthy_remote_workers()),
            "ppo/seconds": time.monotonic() - collected,
        }
        self._outcome = RoundOutcome(rollout, figures, summary.skipped)

    @functools.cached_property
    def settings(self) -> Config:
        """The run's configuration."""
        return config_from_dict(self.config.env_config["config"])

    @property
    def policy(self) -> VersionedWeights:
        """The newest sampler, put into the object store once per version."""
        if self._policy is None:
            state = self.policy_state().sampler
            self._policy = VersionedWeights(self._policy_version, ray.put(state))
        return self._policy

    def policy_state(self) -> PolicyState:
        """Sampler and optimiser for a checkpoint."""
        version = self._policy_version
        return self._on_learners(MaskingPPOLearner.policy_state, version=version)

    def load_policy_state(self, state: PolicyState) -> None:
        """Continues from a checkpoint."""
        self._on_learners(MaskingPPOLearner.load_policy_state, state=state)
        self._policy_version, self._policy = state.version, None

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Restarted runners need no state: every request brings the versions it wants."""
        return env_runner_group.probe_unhealthy_env_runners()

    def _on_learners(self, call: Any, **kwargs: Any) -> Any:
        """Calls every learner; returns the first one's answer and raises the first error."""
        answers = [result.get() for result in self.learner_group.foreach_learner(call, **kwargs)]
        for answer in answers:
            if isinstance(answer, Exception):
                raise getattr(answer, "cause", None) or answer
        if not answers:
            raise ComponentFailedError("no PPO learner answered; see the Ray logs for its end")
        return answers[0]

    def _collect(self, request: RoundRequest) -> Rollout:
        """Rollouts of all parts; what a lost or failing runner leaves is asked of the others."""
        settings = self.settings
        size, total = settings.rl.rollout_clips, len(request.batch)
        missing = {
            request.batch.first + start: request.batch.rows(start, min(start + size, total))
            for start in range(0, total, size)
        }
        done: list[Rollout] = []
        failures: list[str] = []
        deadline = time.monotonic() + settings.rl.rollout_seconds
        while missing:
            if time.monotonic() > deadline:
                raise ComponentTimeoutError(_timeout_message(settings, len(missing), failures))
            if len(failures) > settings.rl.max_runner_restarts:
                raise ComponentFailedError(f"rollouts keep failing: {failures[-1]}")
            for reply in self._ask(list(missing.values()), request, deadline):
                if reply.failure is not None:
                    failures.append(reply.failure)
                for rollout in reply.rollouts:
                    if missing.pop(rollout.first, None) is not None:
                        _check_fresh(rollout, request, settings.rl.staleness)
                        done.append(rollout)
        return join_rollouts(sorted(done, key=lambda rollout: rollout.first))

    def _ask(
        self, parts: list[ClipBatch], request: RoundRequest, deadline: float
    ) -> list[RolloutReply]:
        """One call to every healthy runner with its even share of the parts."""
        runners = self.env_runner_group.healthy_env_runner_ids()
        if not runners:
            self.restore_env_runners(self.env_runner_group)
            time.sleep(0.2)
            return []
        shares = {runner: parts[place :: len(runners)] for place, runner in enumerate(runners)}
        asked = [runner for runner in runners if shares[runner]]
        return self.env_runner_group.foreach_env_runner(
            ["sample"] * len(asked),
            kwargs=[
                {"parts": shares[runner], "policy": self.policy, "mae": request.mae}
                for runner in asked
            ],
            remote_worker_ids=asked,
            local_env_runner=False,
            timeout_seconds=max(0.1, deadline - time.monotonic()),
        )


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
            env_runner_health_probe_timeout_s=10.0,
        )
    )
    return config.build_algo()


def _check_fresh(rollout: Rollout, request: RoundRequest, staleness: int) -> None:
    if rollout.mae_version < request.step - staleness:
        raise StaleRolloutError(
            f"round {request.step}: a rollout was scored by autoencoder {rollout.mae_version}, "
            f"older than rl.staleness={staleness} permits"
        )


def _timeout_message(settings: Config, missing: int, failures: list[str]) -> str:
    cause = failures[-1] if failures else "no runner reported a failure; it may be overloaded"
    return (
        f"{missing} rollouts of a round did not come back within rl.rollout_seconds="
        f"{settings.rl.rollout_seconds:g}: {cause}"
    )
