"""The sampler being trained: policy, optimiser and update of one rank, in any mode."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tats_ray.config.rl import RLSettings
from tats_ray.data.clip_inputs import ClipInputs
from tats_ray.data.clips import Clips
from tats_ray.masking.selection import SamplerView
from tats_ray.models.mae import PatchEmbedding
from tats_ray.models.numerics import ALONE, Ranks, autocast
from tats_ray.models.optimizer import GuardedOptimizer, build_adamw
from tats_ray.models.samplers import PolicyOutput, TrajectorySampler
from tats_ray.models.state import State, load_model_state, model_state
from tats_ray.models.tokens import patchify
from tats_ray.rl.environment import ReconstructionEnvironment
from tats_ray.rl.rollout import Rollout, collect_rollout, join_rollouts
from tats_ray.rl.update import (
    Policy,
    UpdateSummary,
    UpdateTrace,
    build_ppo_batch,
    ppo_update,
    read_update,
)


@dataclass(frozen=True)
class PolicyState:
    """Sampler (actor and critic) and its optimiser after `version` updates."""

    version: int
    sampler: State
    optimizer: State


@dataclass(frozen=True)
class PolicyUpdate:
    """An update that was made, with its metrics still on the device.

    Attributes:
        step: 0-based, of the run.
        clips: int64 [b], places in the stream of the clips that it learned from.
    """

    step: int
    trace: UpdateTrace
    clips: np.ndarray


@dataclass(frozen=True)
class LearnerSettings:
    """What one learner updates with.

    Attributes:
        inputs: how clips become pixels.
        view: what the policy sees.
        minibatch_clips: clips per minibatch of this learner.
        skip_limit: updates that may be left out because they are not finite.
    """

    rl: RLSettings
    inputs: ClipInputs
    view: SamplerView
    precision: str
    minibatch_clips: int
    skip_limit: int


_WEIGHT_DECAY = 0.05  # as the autoencoder
_GRADIENT_CLIP = 1.0  # largest norm; conventional for PPO


class PolicyLearner:
    """Updates a sampler on rollouts, with the one PPO update that all modes share."""

    def __init__(self, sampler: TrajectorySampler, settings: LearnerSettings) -> None:
        rl = settings.rl
        self.sampler = sampler
        self.settings = settings
        self.device = next(sampler.parameters()).device
        self.adamw = build_adamw(sampler, rl.lr, _WEIGHT_DECAY, (0.9, 0.999))
        self.optimizer = GuardedOptimizer(self.adamw, _GRADIENT_CLIP, settings.skip_limit)

    def update(
        self,
        rollout: Rollout,
        clips: Clips,
        step: int,
        *,
        embedding: PatchEmbedding,
        policy: Policy | None = None,
    ) -> PolicyUpdate:
        """One update on this rank's rollouts; its metrics stay on the device.

        Args:
            embedding: of the autoencoder that scored them; patch tokens are the policy's state.
            policy: the sampler's data-parallel form, where there is one.
        """
        settings = self.settings
        tokens = rollout.view
        if tokens is None:
            tokens = self._tokens(embedding, clips)
        batch = build_ppo_batch(self.sampler, tokens, rollout, settings.rl, settings.precision)
        trace = ppo_update(
            policy or self._forward,
            self.optimizer,
            batch,
            settings.rl,
            minibatch_clips=settings.minibatch_clips,
        )
        return PolicyUpdate(step, trace, clips.stream_indices)

    def read(self, update: PolicyUpdate, ranks: Ranks = ALONE) -> UpdateSummary:
        """Metrics of an update; all ranks call it for the same one.

        Raises:
            NonFiniteError: as `read_update`.
        """
        return read_update(update.trace, self.optimizer, update.step, update.clips, ranks)

    def state(self, version: int) -> PolicyState:
        """Copy of weights and optimiser."""
        moments = self.optimizer.state(self.sampler)
        return PolicyState(version, model_state(self.sampler), moments)

    def load(self, state: PolicyState) -> None:
        """Continues from a state."""
        load_model_state(self.sampler, state.sampler)
        self.optimizer.load(self.sampler, state.optimizer)

    @torch.no_grad()
    def _tokens(self, embedding: PatchEmbedding, clips: Clips) -> Tensor:
        """The policy's state of each clip, [B, N, d]: computed once, reused over the epochs."""
        settings = self.settings
        view = settings.view
        pixels = settings.inputs.pixels(clips, self.device)
        patches = patchify(pixels, view.tubelet, view.patch)
        with autocast(settings.precision, self.device):
            return view(patches, embedding)

    def _forward(self, tokens: Tensor) -> PolicyOutput:
        with autocast(self.settings.precision, self.device):
            return self.sampler(tokens)


class InProcessPolicy:
    """Rollout worker and PPO learner in one process; its environment is the autoencoder in
    training, and `version` counts updates."""

    def __init__(self, environment: ReconstructionEnvironment, learner: PolicyLearner) -> None:
        self.environment = environment
        self.learner = learner
        self.version = 0

    @property
    def sampler(self) -> TrajectorySampler:
        return self.learner.sampler

    def roll_out(self, clips: Clips, step: int) -> Rollout:
        """Rollouts of the clips; the autoencoder is of version `step`."""
        rl = self.learner.settings.rl
        self.environment.version = step
        collect = partial(collect_rollout, policy_version=self.version, draws=rl.draws_per_clip)
        # In the same chunks as rollout workers take, so that sums are rounded alike.
        size, starts = rl.rollout_clips, range(0, len(clips), rl.rollout_clips)
        chunks = [clips.rows(start, start + size) for start in starts]
        return join_rollouts([collect(self.environment, self.sampler, chunk) for chunk in chunks])

    def update(self, rollout: Rollout, clips: Clips, step: int) -> PolicyUpdate:
        """One PPO update, as `PolicyLearner.update`."""
        embedding = self.environment.mae.patch_embedding
        update = self.learner.update(rollout, clips, step, embedding=embedding)
        self.version += 1
        return update

    def state(self) -> PolicyState:
        return self.learner.state(self.version)

    def load(self, state: PolicyState) -> None:
        self.learner.load(state)
        self.version = state.version
