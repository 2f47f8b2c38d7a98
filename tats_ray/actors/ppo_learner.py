"""The central PPO learner: RLlib's Learner around the update that all modes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayActorError
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor

from tats_ray.actors.decode_stream import read_remote
from tats_ray.actors.ray_compat import death_cause
from tats_ray.actors.rllib_compat import learner_rank
from tats_ray.config import Config, config_from_dict
from tats_ray.data.clips import ClipBatch
from tats_ray.errors import ComponentFailedError
from tats_ray.models.mae import PatchEmbedding
from tats_ray.models.numerics import Ranks, autocast
from tats_ray.models.samplers import PolicyOutput
from tats_ray.models.state import State, VersionedWeights, load_model_state, model_state
from tats_ray.rl.learner import PolicyState
from tats_ray.rl.rollout import Rollout
from tats_ray.rl.update import UpdateSummary
from tats_ray.training.policy import build_first_policy, build_learner

T = TypeVar("T")

_EMBEDDING_PREFIX = "patch_embedding."


@dataclass(frozen=True)
class UpdateRequest:
    """One update for the learners: clips by reference, their rollouts, and the autoencoder whose
    patch embedding makes their tokens; None where the policy reads no patch tokens."""

    step: int
    batch: ClipBatch
    rollout: Rollout
    mae: VersionedWeights | None


class SamplerModule(TorchRLModule):
    """The sampler as an RLlib module; the batch's `tokens` are float [B, N, d] patch tokens."""

    def setup(self) -> None:
        config = config_from_dict(self.model_config["config"])
        self.precision = config.train.precision
        self.sampler = build_first_policy(config)

    def _forward(self, batch: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor | None]:
        tokens = batch["tokens"]
        with autocast(self.precision, tokens.device):
            return self.sampler(tokens)._asdict()


class MaskingPPOLearner(TorchLearner):
    """One rank of the learners; RLlib places it, and makes its module data-parallel."""

    def build(self) -> None:
        super().build()
        settings = self._settings
        torch.set_num_threads(settings.cluster.threads)
        values = settings.model.tubelet * settings.model.patch**2
        self._embedding = PatchEmbedding(values, settings.model.width).to(self.device)
        self._embedding_version = -1
        self.policy.optimizer.watch(self.module[DEFAULT_MODULE_ID])

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        self._settings = config_from_dict(config.env_config["config"])
        self.policy = build_learner(self._settings, self.module[module_id].unwrapped().sampler)
        self.register_optimizer(
            module_id=module_id,
            optimizer=self.policy.adamw,
            params=list(self.policy.sampler.parameters()),
            lr_or_lr_schedule=self._settings.rl.lr,
        )

    def compute_loss_for_module(self, **kwargs: Any) -> Tensor:
        """Of RLlib's own loop over minibatches, in whose place `ppo_update` stands."""
        raise AssertionError("updates go through update_policy")

    def update_policy(self, request: UpdateRequest) -> UpdateSummary:
        """One PPO update on this learner's rows of the rollouts; returns its metrics."""
        ranks = Ranks(learner_rank(self), max(1, self.config.num_learners))
        share = len(request.rollout) // ranks.size
        start = ranks.rank * share
        if request.mae is not None:
            self._load_embedding(request.mae)
        update = self.policy.update(
            request.rollout.rows(start, start + share),
            read_remote(request.batch.rows(start, start + share)),
            request.step,
            embedding=self._embedding,
            policy=self._forward,
        )
        return self.policy.read(update, ranks)

    def _forward(self, tokens: Tensor) -> PolicyOutput:
        module = self.module[DEFAULT_MODULE_ID]
        return PolicyOutput(**module.forward_train({"tokens": tokens}))

    def _load_embedding(self, mae: VersionedWeights) -> None:
        if mae.version == self._embedding_version:
            return
        state = ray.get(mae.ref)
        own = {
            name.removeprefix(_EMBEDDING_PREFIX): value
            for name, value in state.items()
            if name.startswith(_EMBEDDING_PREFIX)
        }
        load_model_state(self._embedding, own)
        self._embedding_version = mae.version


class PPOLearners:
    """All learners as one. Remote ones that die are started anew with the newest state that was
    saved, at most `train.snapshot_interval` updates old; the call that found them dead is repeated.

    Attributes:
        version: updates so far, those included that a restart has lost: it only grows.
        restarts: how often learners were started anew.
        lost_updates: updates that restarts have lost.
    """

    def __init__(
        self, settings: Config, group: LearnerGroup, rebuild: Callable[[], LearnerGroup]
    ) -> None:
        self._settings = settings
        self._group = group
        self._rebuild = rebuild  # ends the group and makes another
        self._last_saved: PolicyState | None = None  # None: as it was built
        self._last_saved_at = 0  # its version; after a restart the newest one
        self.version = 0
        self.restarts = 0
        self.lost_updates = 0

    def update(self, request: UpdateRequest) -> UpdateSummary:
        """One PPO update; its result is of version `version`.

        Raises:
            NonFiniteError: PPO diverged.
            ComponentFailedError: learners were lost more than `train.max_failures` times.
        """
        settings, version = self._settings, self.version + 1
        saved = settings.rl.learners > 0 and version % settings.train.snapshot_interval == 0

        def update(learner: MaskingPPOLearner) -> tuple[UpdateSummary, PolicyState | None]:
            # In one call: a learner that dies in between has not given an answer either.
            summary = learner.update_policy(request)
            return summary, learner.policy.state(version) if saved else None

        summary, state = self._call(update)
        self.version = version
        if state is not None:
            self._last_saved, self._last_saved_at = state, version
        return summary

    def weights(self) -> State:
        """The newest sampler."""
        return self._call(lambda learner: model_state(learner.policy.sampler))

    def state(self) -> PolicyState:
        """Sampler and optimiser, which a restart would continue from."""
        version = self.version
        self._last_saved = self._call(lambda learner: learner.policy.state(version))
        self._last_saved_at = version
        return self._last_saved

    def load(self, state: PolicyState) -> None:
        """Continues from a checkpoint."""
        self.version = self._last_saved_at = state.version
        self._last_saved = state
        self._call(lambda learner: learner.policy.load(state))

    def metrics(self) -> dict[str, float]:
        """What was lost so far; nothing where the learner lives in the driver."""
        if not self._settings.rl.learners:
            return {}
        return {"ppo/restarts": float(self.restarts), "ppo/lost_updates": float(self.lost_updates)}

    def _call(self, call: Callable[[MaskingPPOLearner], T]) -> T:
        """The first learner's answer; the first error that is not of a lost learner is raised."""
        while True:
            results = self._group.foreach_learner(call)
            answers = [result.get() for result in results]
            lost = [answer for answer in answers if isinstance(answer, RayActorError)]
            if answers and not lost:
                break
            self._restart(lost[0] if lost else None)
        for answer in answers:
            if isinstance(answer, Exception):
                raise getattr(answer, "cause", None) or answer
        return answers[0]

    def _restart(self, cause: RayActorError | None) -> None:
        """Learners with the newest saved state; those that die as they start are started again."""
        limit = self._settings.train.max_failures
        self.lost_updates += self.version - self._last_saved_at
        self._last_saved_at = self.version
        while self.restarts < limit:
            self.restarts += 1
            try:
                self._group = self._rebuild()
                break
            except RayActorError as error:
                cause = error
        else:
            reason = death_cause(cause) if cause else "none answered"
            raise ComponentFailedError(
                f"the PPO learner was lost after train.max_failures={limit} restarts: {reason}"
            )
        if (state := self._last_saved) is not None:
            self._call(lambda learner: learner.policy.load(state))
