"""PPO's loss and log-probabilities against a reference written in NumPy loops from the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tats_ray.config.rl import RLSettings
from tats_ray.models.samplers import PolicyOutput
from tats_ray.models.tokens import masked_index
from tats_ray.rl.ppo import LOG_RATIO_LIMIT, VALUE_COEFFICIENT, PPOBatch, ppo_loss

CLIPS, DRAWS, TOKENS, VISIBLE = 3, 2, 10, 3

SETTINGS = [
    {"credit_level": "token", "log_prob_over": "masked"},
    {"credit_level": "set", "log_prob_over": "masked"},
    {"credit_level": "set", "log_prob_over": "visible"},
    {"credit_level": "set", "log_prob_over": "visible", "set_log_prob": "plackett_luce"},
]


def _log_softmax(scores):
    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum())


def _set_log_prob(old_log_probs, draw, section):
    """The number that carries a draw's advantage, from the definition."""
    if section.log_prob_over == "masked":
        return np.mean([old_log_probs[i] for i in range(TOKENS) if i not in draw])
    if section.set_log_prob == "mean":
        return np.mean([old_log_probs[i] for i in draw])
    terms, gone = [], []
    for pick in draw:
        rest = np.log(sum(np.exp(old_log_probs[i]) for i in range(TOKENS) if i not in gone))
        terms.append(old_log_probs[pick] - rest)
        gone.append(pick)
    return np.mean(terms)


def _reference(new_scores, value, batch, section):
    surrogate, ratios, log_ratios = [], [], []
    for clip in range(CLIPS):
        new, old = _log_softmax(new_scores[clip]), batch["old_log_probs"][clip]
        for draw in range(DRAWS):
            if section.credit_level == "token":
                targets = batch["targets"][clip, draw]
                pairs = [(new[t] - old[t], batch["advantage"][clip, draw, j])
                         for j, t in enumerate(targets)]  # fmt: skip
            else:
                chosen = batch["visible"][clip, draw].tolist()
                difference = _set_log_prob(new, chosen, section) - _set_log_prob(
                    old, chosen, section
                )
                pairs = [(difference, batch["advantage"][clip, draw])]
            for difference, advantage in pairs:
                limit = LOG_RATIO_LIMIT
                log_ratio = min(max(difference, -limit), limit)
                ratio = np.exp(log_ratio)
                bounded = min(max(ratio, 1 - section.clip), 1 + section.clip)
                surrogate.append(min(ratio * advantage, bounded * advantage))
                ratios.append(ratio)
                log_ratios.append(log_ratio)
    ratios, log_ratios = np.array(ratios), np.array(log_ratios)
    policy = -np.mean(surrogate)
    value_loss = np.mean((value - batch["value_target"]) ** 2)
    entropies = []
    for clip in range(CLIPS):
        log_probs = _log_softmax(new_scores[clip])
        entropies.append(-(np.exp(log_probs) * log_probs).sum())
    entropy = np.mean(entropies)
    return {
        "total": policy + VALUE_COEFFICIENT * value_loss
        - section.entropy_coefficient * entropy,
        "policy": policy,
        "value": value_loss,
        "entropy": entropy,
        "kl": np.mean(ratios - 1 - log_ratios),
        "clip_fraction": np.mean(np.abs(ratios - 1) > section.clip),
        "ratio_max": ratios.max(),
    }  # fmt: skip


def _case(section, seed):
    rng = np.random.default_rng(seed)
    visible = np.stack(
        [[rng.permutation(TOKENS)[:VISIBLE] for _ in range(DRAWS)] for _ in range(CLIPS)]
    )
    targets = masked_index(torch.from_numpy(visible.reshape(-1, VISIBLE)), TOKENS).numpy()
    targets = targets.reshape(CLIPS, DRAWS, -1)
    shape = targets.shape if section.credit_level == "token" else (CLIPS, DRAWS)
    old_scores = rng.normal(size=(CLIPS, TOKENS))
    batch = {
        "old_log_probs": np.stack([_log_softmax(row) for row in old_scores]),
        "visible": visible,
        "targets": targets,
        "advantage": rng.normal(size=shape),
        "value_target": rng.normal(size=CLIPS),
    }
    return old_scores + rng.normal(scale=0.3, size=old_scores.shape), rng.normal(size=CLIPS), batch


def _loss(new_scores, value, batch, section):
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    output = PolicyOutput(new_scores.log_softmax(1), torch.from_numpy(value))
    return ppo_loss(output, PPOBatch(tokens=torch.empty(0), **tensors), section)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s.values()))
@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_the_reference(settings, seed):
    section = RLSettings(**settings)
    new_scores, value, batch = _case(section, seed)
    got = _loss(torch.from_numpy(new_scores), value, batch, section)
    for name, wanted in _reference(new_scores, value, batch, section).items():
        assert getattr(got, name).item() == pytest.approx(wanted, abs=1e-6), name


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s.values()))
def test_gradient_equals_finite_differences_of_the_reference(settings):
    section = RLSettings(**settings)
    new_scores, value, batch = _case(section, 7)
    scores = torch.from_numpy(new_scores).requires_grad_()
    _loss(scores, value, batch, section).total.backward()
    step = 1e-6
    for place in [(0, 0), (1, 4), (2, 9)]:
        ends = []
        for sign in (1, -1):
            moved = new_scores.copy()
            moved[place] += sign * step
            ends.append(_reference(moved, value, batch, section)["total"])
        assert scores.grad[place].item() == pytest.approx(
            (ends[0] - ends[1]) / (2 * step), abs=1e-6
        )


def test_without_a_critic_the_loss_has_no_value_error():
    section = RLSettings()
    new_scores, value, batch = _case(section, 2)
    scores = torch.from_numpy(new_scores)
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    output = PolicyOutput(scores.log_softmax(1), None)
    got = ppo_loss(output, PPOBatch(tokens=torch.empty(0), **tensors), section)
    wanted = _reference(new_scores, value, batch, section)
    assert got.value is None
    assert got.total.item() == pytest.approx(
        wanted["total"] - VALUE_COEFFICIENT * wanted["value"], abs=1e-9
    )


def test_the_first_epoch_has_ratio_one_and_no_clipping():
    section = RLSettings()
    _, value, batch = _case(section, 1)
    got = _loss(torch.from_numpy(batch["old_log_probs"].copy()), value, batch, section)
    assert got.ratio_max.item() == pytest.approx(1.0)
    assert got.kl.item() == pytest.approx(0.0, abs=1e-12)
    assert got.clip_fraction.item() == 0


def test_a_runaway_ratio_stays_finite():
    section = RLSettings()
    new_scores, value, batch = _case(section, 1)
    got = _loss(torch.from_numpy(new_scores * 500), value, batch, section)
    assert torch.isfinite(torch.stack(list(got))).all()
    assert got.ratio_max.item() <= np.exp(5.0) + 1e-9
