"""From reconstruction errors to advantages. Every choice is a setting."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tats_ray.config.rl import RLSettings


class Advantages(NamedTuple):
    advantage: Tensor  # float32 [B, D, q] for per-token credit, [B, D] for set credit
    value_target: Tensor  # float32 [B], what the critic should have said


def compute_advantages(error: Tensor, value: Tensor, settings: RLSettings) -> Advantages:
    """Reward - baseline, then whitening.

    Args:
        error: float32 [B, D, q], per-token reconstruction errors of D draws.
        value: float32 [B], the critic's expectation before the update.
        settings: credit, reward_sign, baseline and whiten decide.
    """
    reward = settings.reward_sign * error
    value_target = reward.mean(dim=(1, 2))
    if settings.credit_level == "set":
        reward = reward.mean(dim=2)  # [B, D]
    shape = (-1,) + (1,) * (reward.dim() - 1)
    if settings.baseline == "critic":
        reward = reward - value.view(shape)
    elif settings.baseline == "group":
        reward = reward - value_target.view(shape)
    return Advantages(_whiten(reward, settings.whiten), value_target)


def _whiten(reward: Tensor, scope: str) -> Tensor:
    if scope == "none":
        return reward
    dims = tuple(range(1 if scope == "clip" else 0, reward.dim()))
    std, mean = torch.std_mean(reward, dim=dims, keepdim=True, correction=0)
    return (reward - mean) / (std + 1e-6)
