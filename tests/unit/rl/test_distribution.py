"""Log-probabilities of ordered draws against enumeration."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.rl.ppo import plackett_luce_log_prob, set_log_prob


def _by_hand(probs: list[float], draw: tuple[int, ...]) -> float:
    left, log_prob = 1.0, 0.0
    for pick in draw:
        log_prob += math.log(probs[pick] / left)
        left -= probs[pick]
    return log_prob


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_ordered_draw_has_its_probability(size):
    torch.manual_seed(0)
    old_log_probs = torch.randn(1, 5, dtype=torch.float64).log_softmax(1)
    draws = list(itertools.permutations(range(5), size))
    picks = plackett_luce_log_prob(old_log_probs, torch.tensor([draws]))
    totals = picks.sum(2)[0]
    assert totals.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    if size < 5:  # by hand the last of five divides by a rounded zero
        probs = old_log_probs.exp()[0].tolist()
        for total, draw in zip(totals.tolist(), draws, strict=True):
            assert total == pytest.approx(_by_hand(probs, draw), abs=1e-9)


def test_a_shift_of_the_scores_changes_nothing():
    scores = torch.randn(3, 7, dtype=torch.float64)
    drawn = torch.stack([torch.randperm(7)[:4] for _ in range(6)]).view(3, 2, 4)
    one = plackett_luce_log_prob(scores, drawn)
    two = plackett_luce_log_prob(scores + 11.0, drawn)
    assert torch.allclose(one, two, atol=1e-12)


def test_the_mean_rule_is_the_mean():
    old_log_probs = torch.randn(2, 6).log_softmax(1)
    index = torch.tensor([[[0, 3]], [[5, 1]]])
    wanted = torch.stack([old_log_probs[0, [0, 3]].mean(), old_log_probs[1, [5, 1]].mean()])
    assert torch.allclose(set_log_prob(old_log_probs, index)[:, 0], wanted)


def _policies(tokens):
    """Scores as odd as a sampler could give: equal, far apart, hardly different."""
    score = st.floats(-30, 30, width=32) | st.sampled_from([0.0, -300.0, 300.0])
    return st.lists(score, min_size=tokens, max_size=tokens)


@given(data=st.data(), tokens=st.integers(2, 24))
def test_log_probs_are_those_of_a_draw(data, tokens):
    """Finite, never above 0, and those of all orders of a pair sum to that of the pair."""
    scores = torch.tensor([data.draw(_policies(tokens))], dtype=torch.float64)
    old_log_probs = scores.log_softmax(1)
    size = data.draw(st.integers(1, tokens))
    drawn = torch.tensor([[data.draw(st.permutations(range(tokens)))[:size]]])
    picks = plackett_luce_log_prob(old_log_probs, drawn)
    assert picks.shape == (1, 1, size)
    assert torch.isfinite(picks).all() and (picks <= 1e-9).all()
    assert picks[0, 0, 0].item() == pytest.approx(old_log_probs[0, drawn[0, 0, 0]].item(), abs=1e-9)
    mean = set_log_prob(old_log_probs, drawn)
    assert torch.isfinite(mean).all() and mean.item() <= 0
    assert torch.equal(set_log_prob(old_log_probs, drawn.flip(2)), mean) or torch.allclose(
        set_log_prob(old_log_probs, drawn.flip(2)), mean
    ), "a set has no order"


@given(data=st.data(), tokens=st.integers(2, 12))
def test_renaming_tokens_renames_their_log_probs(data, tokens):
    scores = torch.tensor([data.draw(_policies(tokens))], dtype=torch.float64)
    order = torch.tensor(data.draw(st.permutations(range(tokens))))
    drawn = torch.tensor([[data.draw(st.permutations(range(tokens)))]])
    renamed = plackett_luce_log_prob(scores[:, order], torch.argsort(order)[drawn])
    assert torch.allclose(plackett_luce_log_prob(scores, drawn), renamed, atol=1e-9)
