"""A PPO update of the sampler: what RLlib's Learner does, as plain functions that it shares."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.models.inputs import clip_pixels
from tats_ray.models.mae import PatchEmbedding
from tats_ray.models.precision import autocast
from tats_ray.models.sampler import TrajectorySampler
from tats_ray.models.tokens import patchify
from tats_ray.rl.ppo import PPOBatch, PPOLoss, ppo_loss
from tats_ray.rl.reward import compute_advantages
from tats_ray.rl.rollout import Rollout


@torch.no_grad()
def patch_tokens(
    config: Config, embedding: PatchEmbedding, clips: Clips, device: torch.device
) -> Tensor:
    """The policy's state of each clip, [B, N, d]: computed once, reused over the epochs."""
    pixels = clip_pixels(config, clips, device)
    with autocast(config.train.precision, device):
        return embedding(patchify(pixels, config.model.tubelet, config.model.patch))


@torch.no_grad()
def build_ppo_batch(
    config: Config, sampler: TrajectorySampler, tokens: Tensor, rollout: Rollout
) -> PPOBatch:
    """Rollout numbers on the device, with advantages against the critic as it is now."""
    device = tokens.device
    with autocast(config.train.precision, device):
        value = sampler.value(tokens)
    error = torch.from_numpy(rollout.error).to(device)
    advantages = compute_advantages(error, value, config.rl)
    return PPOBatch(
        tokens=tokens,
        log_policy=torch.from_numpy(rollout.log_policy).to(device),
        visible=torch.from_numpy(rollout.visible).to(device),
        targets=torch.from_numpy(rollout.targets).to(device),
        advantage=advantages.advantage,
        value_target=advantages.value_target,
    )


def policy_loss(config: Config, sampler: torch.nn.Module, batch: PPOBatch) -> PPOLoss:
    """Forward and loss of one minibatch."""
    with autocast(config.train.precision, batch.tokens.device):
        output = sampler(batch.tokens)
    return ppo_loss(output, batch, config.rl)


def minibatches(config: Config, batch: PPOBatch) -> Iterator[PPOBatch]:
    """Contiguous minibatches over `rl.epochs` epochs, in order, as RLlib's learner cuts them."""
    size = config.learner_minibatch_clips
    for _ in range(config.rl.epochs):
        for start in range(0, len(batch.tokens), size):
            yield PPOBatch(*(column[start : start + size] for column in batch))
