"""Credit of visible tokens that masked ones stand for, against what visible ones would give."""

from __future__ import annotations

import torch

from tats_ray.masking.selection import draw_without_replacement
from tats_ray.models.tokens import masked_index
from tats_ray.rl.ppo import ODDS_LIMIT, weigh_as_visible

TOKENS, VISIBLE, DRAWS = 60, 3, 60_000


def _gradient(log_probs, index, credit):
    """Of the mean over draws of sum credit x log p, by the scores of the policy."""
    total = torch.zeros(TOKENS).scatter_add_(0, index.flatten(), credit.flatten()) / len(index)
    return total - log_probs.exp() * total.sum()


def _cosine(one, two):
    return torch.nn.functional.cosine_similarity(one, two, dim=0).item()


def test_masked_tokens_sum_up_to_what_visible_ones_would():
    """A visible token has no error in a run; here all are known, and both sums can be made."""
    generator = torch.Generator().manual_seed(0)
    log_probs = (torch.randn(TOKENS, generator=generator) * 0.8).log_softmax(0)
    error = torch.rand(TOKENS, generator=generator)
    uniform = torch.rand(DRAWS, TOKENS, generator=generator).clamp_min(1e-20)
    visible = draw_without_replacement(log_probs[None], -(-uniform.log()).log(), VISIBLE)
    masked = masked_index(visible, TOKENS)
    wanted = _gradient(log_probs, visible, error[visible])
    weighed = weigh_as_visible(error[masked][None], log_probs[None], masked[None])[0]
    assert _cosine(_gradient(log_probs, masked, weighed), wanted) > 0.99
    assert _cosine(_gradient(log_probs, masked, error[masked]), wanted) < 0.9


def test_weights_have_mean_one_and_a_bound():
    scores = torch.zeros(2, TOKENS)
    scores[1, 0] = 20.0  # all the probability on one token
    masked = torch.arange(TOKENS).expand(2, 1, TOKENS)
    weights = weigh_as_visible(torch.ones(2, 1, TOKENS), scores.log_softmax(1), masked)
    assert torch.allclose(weights[0], torch.ones(1, TOKENS))
    assert torch.allclose(weights.mean(dim=2), torch.ones(2, 1))
    rare = weights[1, 0, 1]
    share = scores.log_softmax(1).exp()[1, 1] * TOKENS
    assert torch.isclose(weights[1, 0, 0] / rare, ODDS_LIMIT / share, rtol=1e-3)
