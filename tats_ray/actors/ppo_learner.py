"""The central PPO learner: RLlib's Learner with the loss of `rl.ppo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import Learner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from tats_ray.actors.decode_stream import read_remote
from tats_ray.config import config_from_dict
from tats_ray.data.clips import ClipBatch
from tats_ray.models.mae import PatchEmbedding
from tats_ray.models.nonfinite import Ranks
from tats_ray.models.optimizer import GuardedOptimizer, build_adamw
from tats_ray.models.sampler import PolicyOutput, TrajectorySampler
from tats_ray.models.state import State, load_model_state, model_state
from tats_ray.rl.ppo import PPOBatch, ppo_loss
from tats_ray.rl.rollout import Rollout
from tats_ray.rl.update import build_ppo_batch, patch_tokens
from tats_ray.rl.update_figures import UpdateFigures, UpdatePlace, UpdateSummary
from tats_ray.rl.versions import PolicyState, VersionedWeights

_EMBEDDING_PREFIX = "patch_embedding."


@dataclass(frozen=True)
class LearnerRound:
    """One round for the learners: clips by reference, rollouts, and the tokens' embedding."""

    step: int
    batch: ClipBatch
    rollout: Rollout
    mae: VersionedWeights


class MaskingPPOLearner(PPOTorchLearner):
    """Turns rollouts into PPO minibatches on its device and updates the sampler.

    RLlib iterates over epochs and minibatches, runs the module, and synchronises several learners;
    its connectors, its advantage estimation and its silent repair of NaN gradients are not used
    (they double a one-step bandit's observations, bias its advantages and hide divergence).
    """

    def build(self) -> None:
        super().build()
        self._settings = config_from_dict(self.config.env_config["config"])
        torch.set_num_threads(self._settings.cluster.threads)
        values = self._settings.model.tubelet * self._settings.model.patch**2
        self._embedding = PatchEmbedding(values, self._settings.model.width).to(self._device)
        self._embedding_version = -1
        self._guard.watch(self._module[DEFAULT_MODULE_ID])
        self._figures = UpdateFigures(self._guard)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        settings = config_from_dict(config.env_config["config"])
        section = settings.rl
        sampler = self._module[module_id].unwrapped().sampler
        adamw = build_adamw(sampler, section.lr, section.weight_decay, (0.9, 0.999))
        limit = settings.train.skip_nonfinite
        self._guard = GuardedOptimizer(adamw, section.gradient_clip, limit)
        self.register_optimizer(
            module_id=module_id,
            optimizer=adamw,
            params=list(sampler.parameters()),
            lr_or_lr_schedule=section.lr,
        )

    def update_round(self, job: LearnerRound) -> UpdateSummary:
        """One PPO update on this learner's rows of the round; returns its figures."""
        share = len(job.rollout) // self._ranks.size
        start = self._ranks.rank * share
        rollout = job.rollout.rows(start, start + share)
        self._load_embedding(job.mae)
        clips = read_remote(job.batch.rows(start, start + share))
        tokens = patch_tokens(self._settings, self._embedding, clips, self._device)
        batch = build_ppo_batch(self._settings, self._sampler, tokens, rollout)
        section = self._settings.rl
        self.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch._asdict())}, share),
            num_epochs=section.epochs,
            minibatch_size=self._settings.learner_minibatch_clips,
        )
        return self._figures.read(UpdatePlace(job.step, clips.positions, self._ranks))

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        columns = PPOBatch(*(batch[name] for name in PPOBatch._fields))
        loss = ppo_loss(PolicyOutput(**fwd_out), columns, self._settings.rl)
        return self._figures.add_loss(loss)

    def postprocess_gradients(self, gradients_dict: dict[Any, Tensor]) -> dict[Any, Tensor]:
        """As they are; clipping belongs to the guarded step."""
        return gradients_dict

    def apply_gradients(self, gradients_dict: dict[Any, Tensor]) -> None:
        self._figures.step(self._settings.rl.lr)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """No adaptive KL coefficient and no schedule: skip RLlib's."""
        Learner.after_gradient_based_update(self, timesteps=timesteps)

    def _make_batch_if_necessary(self, training_data: Any) -> MultiAgentBatch:
        """The batch is built on the device already."""
        return training_data.batch

    def policy_weights(self) -> State:
        """Copy of the weights."""
        return model_state(self._sampler)

    def policy_state(self, version: int) -> PolicyState:
        """Copy of weights and optimiser."""
        return PolicyState(version, self.policy_weights(), self._guard.state(self._sampler))

    def load_policy_state(self, state: PolicyState) -> None:
        """Continues from a checkpoint."""
        load_model_state(self._sampler, state.sampler)
        self._guard.load(self._sampler, state.optimizer)

    @property
    def _ranks(self) -> Ranks:
        return Ranks(self._learner_index, max(1, self.config.num_learners))

    @property
    def _sampler(self) -> TrajectorySampler:
        return self.module[DEFAULT_MODULE_ID].unwrapped().sampler

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
