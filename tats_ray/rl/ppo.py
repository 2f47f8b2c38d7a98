"""PPO's clipped surrogate over token sets (Schulman et al. 2017, eq. 7 and 9), and the plain policy
gradient beside it; pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tats_ray.config.rl import RLSettings
from tats_ray.models.sampler import PolicyOutput
from tats_ray.models.tokens import masked_index
from tats_ray.rl.distribution import gather_log_probs, plackett_luce_log_prob, set_log_prob

# Log-ratios are clamped to +- this before exp, which would overflow where the policy has run away.
LOG_RATIO_LIMIT = 5.0
VALUE_COEFFICIENT = 0.5  # conventional; the critic may share the actor's trunk


class PPOBatch(NamedTuple):
    """Rollouts as the learner sees them; rows are clips."""

    tokens: Tensor  # [B, N, d], patch tokens of the autoencoder that scored them
    old_log_probs: Tensor  # float32 [B, N], of the policy that drew
    visible: Tensor  # int64 [B, D, k], as drawn
    targets: Tensor  # int64 [B, D, q]
    advantage: Tensor  # float32 [B, D, q] or [B, D]
    value_target: Tensor  # float32 [B]


class PPOLoss(NamedTuple):
    """Total loss and the metrics that show PPO's health; all are scalars on the device."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    kl: Tensor
    clip_fraction: Tensor
    ratio_max: Tensor


def ppo_loss(new: PolicyOutput, batch: PPOBatch, settings: RLSettings) -> PPOLoss:
    """Policy loss - entropy bonus + value error.

    `objective` makes the policy loss PPO's clipped surrogate or log p x advantage; the latter with
    per-token credit, no baseline and no whitening is AdaMAE's sampling loss. With per-token credit
    the ratio is that of each masked token, pi_new(i) / pi_old(i); with set credit that of the whole
    set, through the mean log-probability of its members or of its picks.
    """
    old_log, new_log = (
        _action_log_prob(policy, batch, settings) for policy in (batch.old_log_probs, new.log_probs)
    )
    log_ratio = (new_log - old_log).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    if settings.objective == "ppo":
        gain = torch.minimum(ratio * batch.advantage, bounded * batch.advantage)
    else:
        gain = new_log * batch.advantage
    policy = -gain.mean()
    value = (new.value - batch.value_target).square().mean()
    entropy = -(new.log_probs.exp() * new.log_probs).sum(dim=1).mean()
    total = policy + VALUE_COEFFICIENT * value - settings.entropy_coefficient * entropy
    with torch.no_grad():
        kl = (ratio - 1 - log_ratio).mean()  # Schulman's k3 estimate, never negative
        clip_fraction = ((ratio - 1).abs() > settings.clip).float().mean()
    return PPOLoss(total, policy, value, entropy, kl, clip_fraction, ratio.detach().amax())


def _action_log_prob(log_probs: Tensor, batch: PPOBatch, settings: RLSettings) -> Tensor:
    """Log-probability that carries the advantage: [B, D, q] per token, [B, D] per set."""
    if settings.credit_level == "token":
        return gather_log_probs(log_probs, batch.targets)
    if settings.set_log_prob == "plackett_luce":
        return plackett_luce_log_prob(log_probs, batch.visible).mean(dim=2)
    members = batch.visible if settings.log_prob_over == "visible" else _masked(batch, log_probs)
    return set_log_prob(log_probs, members)


def _masked(batch: PPOBatch, log_probs: Tensor) -> Tensor:
    draws = batch.visible.shape[1]
    masked = masked_index(batch.visible.flatten(0, 1), log_probs.shape[1])
    return masked.unflatten(0, (-1, draws))
