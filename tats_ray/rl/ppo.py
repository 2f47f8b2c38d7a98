"""PPO over token sets: log-probabilities, advantages, the clipped surrogate (Schulman et al. 2017,
eq. 7 and 9), and the plain policy gradient beside it; pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tats_ray.config.rl import RLSettings
from tats_ray.models.samplers import PolicyOutput
from tats_ray.models.tokens import masked_index

# Log-ratios are clamped to +- this before exp, which would overflow where the policy has run away.
LOG_RATIO_LIMIT = 5.0
ODDS_LIMIT = 20.0  # of a token's probability over that of a uniform policy
VALUE_COEFFICIENT = 0.5  # conventional; the critic may share the actor's trunk


class PPOBatch(NamedTuple):
    """Rollouts as the learner sees them; rows are clips."""

    tokens: Tensor  # [B, N, d], patch tokens of the autoencoder that scored them
    old_log_probs: Tensor  # float32 [B, N], of the policy that drew
    visible: Tensor  # int64 [B, D, k], as drawn
    targets: Tensor  # int64 [B, D, q]
    advantage: Tensor  # float32 [B, D, q] or [B, D]
    value_target: Tensor  # float32 [B], what the critic should say


class PPOLoss(NamedTuple):
    """Total loss and the metrics that show PPO's health; all are scalars on the device, and
    `value` is None without a critic."""

    total: Tensor
    policy: Tensor
    value: Tensor | None
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
    total, value = policy, None
    if new.value is not None:
        value = (new.value - batch.value_target).square().mean()
        total = total + VALUE_COEFFICIENT * value
    entropy = -(new.log_probs.exp() * new.log_probs).sum(dim=1).mean()
    total = total - settings.entropy_coefficient * entropy
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
    if settings.log_prob_over == "visible":
        return set_log_prob(log_probs, batch.visible)
    masked = masked_index(batch.visible.flatten(0, 1), log_probs.shape[1])
    return set_log_prob(log_probs, masked.unflatten(0, batch.visible.shape[:2]))


def plackett_luce_log_prob(log_probs: Tensor, drawn: Tensor) -> Tensor:
    """Log-probability of each pick of an ordered draw without replacement (Plackett 1975).

    Pick j is drawn from the softmax over what the picks before it left.

    Args:
        log_probs: float32 [B, N], any shift per row.
        drawn: int64 [B, D, k], in the order drawn.

    Returns:
        float32 [B, D, k]; the sum over k is the draw's log-probability.
    """
    draws = drawn.shape[1]
    scores = log_probs[:, None].expand(-1, draws, -1)
    picked = scores.gather(2, drawn)
    rest = scores.scatter(2, drawn, float("-inf")).logsumexp(dim=2, keepdim=True)
    backwards = torch.cat([rest, picked.flip(2)], dim=2).logcumsumexp(dim=2)
    return picked - backwards[..., 1:].flip(2)


def set_log_prob(log_probs: Tensor, index: Tensor) -> Tensor:
    """AdaMAE's rule: mean of the members' log-probabilities, [B, N] x [B, D, k] -> [B, D].

    The mean, not the sum: a sum over hundreds of tokens makes exp(difference) explode.
    """
    return gather_log_probs(log_probs, index).mean(dim=2)


def gather_log_probs(log_probs: Tensor, index: Tensor) -> Tensor:
    """[B, N] at int64 [B, D, k] -> [B, D, k]."""
    return log_probs[:, None].expand(-1, index.shape[1], -1).gather(2, index)


class Advantages(NamedTuple):
    advantage: Tensor  # float32 [B, D, q] for per-token credit, [B, D] for set credit
    value_target: Tensor  # float32 [B], what the critic should have said


def compute_advantages(error: Tensor, value: Tensor | None, settings: RLSettings) -> Advantages:
    """Reward - baseline, then whitening.

    Args:
        error: float32 [B, D, q], per-token reconstruction errors of D draws.
        value: float32 [B], the critic's expectation before the update; None without a critic.
    """
    reward = settings.reward_sign * error
    value_target = reward.mean(dim=(1, 2))
    if settings.credit_level == "set":
        reward = reward.mean(dim=2)  # [B, D]
    shape = (-1,) + (1,) * (reward.dim() - 1)
    if settings.baseline == "critic":
        assert value is not None, "the baseline is the critic's"
        reward = reward - value.view(shape)
    elif settings.baseline == "group":
        reward = reward - value_target.view(shape)
    return Advantages(_whiten(reward, settings.whiten), value_target)


def weigh_as_visible(advantage: Tensor, log_probs: Tensor, targets: Tensor) -> Tensor:
    """Per-token advantages of masked tokens as those of visible ones, which have no error.

    A token that is visible with probability v has its advantage seen with probability 1 - v, when
    it is masked. Weighed by v / (1 - v) then, the masked tokens of many draws sum up to what the
    visible ones would (Horvitz and Thompson 1952). Of few draws out of many tokens v / (1 - v) is
    proportional to the policy's probability; the weight is bounded, since tokens that are hardly
    ever masked would have a huge one.

    Args:
        advantage: float32 [B, D, q].
        log_probs: float32 [B, N], of the policy that drew.
        targets: int64 [B, D, q], predicted masked tokens.

    Returns:
        float32 [B, D, q]; the mean weight of a draw is 1.
    """
    odds = gather_log_probs(log_probs.exp() * log_probs.shape[1], targets)
    odds = odds.clamp(max=ODDS_LIMIT)
    return advantage * odds / odds.mean(dim=2, keepdim=True)


def _whiten(reward: Tensor, scope: str) -> Tensor:
    if scope == "none":
        return reward
    dims = tuple(range(1 if scope == "clip" else 0, reward.dim()))
    std, mean = torch.std_mean(reward, dim=dims, keepdim=True, correction=0)
    return (reward - mean) / (std + 1e-6)
