"""Rollouts and PPO updates in the calling process, over the functions that the actors use."""

from __future__ import annotations

import torch

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.masking.sampled import build_sampler
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.nonfinite import Fault
from tats_ray.models.optimizer import GuardedOptimizer, build_adamw
from tats_ray.models.state import load_model_state, model_state
from tats_ray.rl.environment import ReconstructionEnvironment
from tats_ray.rl.rollout import Rollout, collect_rollout, join_rollouts
from tats_ray.rl.update import build_ppo_batch, minibatches, patch_tokens, policy_loss
from tats_ray.rl.update_figures import UpdateFigures, UpdatePlace
from tats_ray.rl.versions import PolicyState


class SerialActorLearner:
    """Env runner and PPO learner in one; its environment is the autoencoder in training.

    Attributes:
        skipped: what was left out of the last round because it was not finite.
    """

    def __init__(self, config: Config, device: torch.device, mae: MaskedAutoencoder) -> None:
        self.config = config
        self.environment = ReconstructionEnvironment(config, device, mae)
        self.sampler = build_sampler(
            config.masking.sampler, config.model.width, config.grid, config.run.seed
        ).to(device)
        adamw = build_adamw(self.sampler, config.rl.lr, config.rl.weight_decay, (0.9, 0.999))
        limit = config.train.skip_nonfinite
        self.guard = GuardedOptimizer(adamw, config.rl.gradient_clip, limit)
        self.version = 0
        self.skipped: list[Fault] = []
        self._figures = UpdateFigures(self.guard)

    def run_round(self, clips: Clips, step: int) -> tuple[Rollout, dict[str, float]]:
        """One rollout and PPO update; the autoencoder is of version `step`."""
        config, environment = self.config, self.environment
        environment.version = step
        environment.mae.eval()
        # In the same parts as the actors take, so that sums round alike.
        size = config.rl.rollout_clips
        parts = [clips.rows(start, start + size) for start in range(0, len(clips), size)]
        rollout = join_rollouts(
            [
                collect_rollout(config, environment, self.sampler, part, self.version)
                for part in parts
            ]
        )
        tokens = patch_tokens(config, environment.mae.patch_embedding, clips, environment.device)
        batch = build_ppo_batch(config, self.sampler, tokens, rollout)
        for part in minibatches(config, batch):
            loss = self._figures.add_loss(policy_loss(config, self.sampler, part))
            self.guard.zero_grad()
            loss.backward()
            self._figures.step(config.rl.lr)
        self.version += 1
        summary = self._figures.read(UpdatePlace(step, clips.positions))
        self.skipped = summary.skipped
        return rollout, summary.figures | rollout.error_figures()

    def state(self) -> PolicyState:
        moments = self.guard.state(self.sampler)
        return PolicyState(self.version, model_state(self.sampler), moments)

    def load(self, state: PolicyState) -> None:
        load_model_state(self.sampler, state.sampler)
        self.guard.load(self.sampler, state.optimizer)
        self.version = state.version
