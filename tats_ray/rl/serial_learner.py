"""Rollouts and PPO updates in the calling process, over the functions that the actors use."""

from __future__ import annotations

import torch

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.optimizer import GuardedOptimizer, build_adamw
from tats_ray.models.sampler import build_sampler
from tats_ray.models.state import (
    load_model_state,
    load_optimizer_state,
    model_state,
    optimizer_state,
)
from tats_ray.rl.environment import ReconstructionEnvironment
from tats_ray.rl.ppo import PPOLoss
from tats_ray.rl.rollout import Rollout, collect_rollout, join_rollouts
from tats_ray.rl.update import (
    build_ppo_batch,
    minibatches,
    patch_tokens,
    policy_loss,
    summarize_losses,
)
from tats_ray.rl.versions import PolicyState


class SerialActorLearner:
    """Env runner and PPO learner in one; its environment is the autoencoder in training."""

    def __init__(self, config: Config, device: torch.device, mae: MaskedAutoencoder) -> None:
        self.config = config
        self.environment = ReconstructionEnvironment(config, device, mae)
        self.sampler = build_sampler(
            config.masking.sampler, config.model.width, config.grid, config.run.seed
        ).to(device)
        adamw = build_adamw(self.sampler, config.rl.lr, config.rl.weight_decay, (0.9, 0.999))
        self.guard = GuardedOptimizer(adamw, config.rl.gradient_clip)
        self.version = 0

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
        losses = []
        for part in minibatches(config, batch):
            loss = policy_loss(config, self.sampler, part)
            self.guard.zero_grad()
            loss.total.backward()
            self.guard.step(config.rl.lr)
            losses.append(PPOLoss(*(figure.detach() for figure in loss)))
        self.version += 1
        figures = summarize_losses(losses, self.guard.poisoned)
        return rollout, figures | {"rollout/error": float(rollout.error.mean())}

    def state(self) -> PolicyState:
        moments = optimizer_state(self.sampler, self.guard.optimizer)
        return PolicyState(self.version, model_state(self.sampler), moments)

    def load(self, state: PolicyState) -> None:
        load_model_state(self.sampler, state.sampler)
        load_optimizer_state(self.sampler, self.guard.optimizer, state.optimizer)
        self.version = state.version
