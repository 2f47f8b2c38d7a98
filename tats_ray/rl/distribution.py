"""Log-probabilities of token sets under a softmax policy."""

from __future__ import annotations

import torch
from torch import Tensor


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
