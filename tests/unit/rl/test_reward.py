"""Rewards, baselines and whitening."""

import numpy as np
import pytest
import torch

from tats_ray.config.rl import RLSection
from tats_ray.rl.reward import compute_advantages

ERROR = torch.rand(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
VALUE = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def _advantages(**settings):
    section = RLSection(draws_per_clip=3, **settings)
    return compute_advantages(ERROR, VALUE, section)


@pytest.mark.parametrize("sign", [1, -1])
def test_critic_baseline_without_whitening_is_reward_minus_value(sign):
    got = _advantages(reward_sign=sign, whiten="none")
    assert torch.allclose(got.advantage, sign * ERROR - VALUE.view(4, 1, 1))
    assert torch.allclose(got.value_target, sign * ERROR.mean((1, 2)))


def test_set_credit_has_one_number_per_draw():
    got = _advantages(credit="set", baseline="none", whiten="none")
    assert torch.allclose(got.advantage, ERROR.mean(2))


def test_group_baseline_centres_the_draws_of_a_clip():
    got = _advantages(credit="set", baseline="group", whiten="none")
    assert torch.allclose(got.advantage.mean(1), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(got.advantage, ERROR.mean(2) - ERROR.mean((1, 2))[:, None])


@pytest.mark.parametrize("baseline", ["critic", "group", "none"])
def test_whitening_per_clip_standardises_each_clip(baseline):
    got = _advantages(baseline=baseline, whiten="clip").advantage.numpy()
    assert np.allclose(got.mean(axis=(1, 2)), 0, atol=1e-6)
    assert np.allclose(got.std(axis=(1, 2)), 1, atol=1e-4)
    by_hand = (ERROR.numpy() - ERROR.mean((1, 2), keepdim=True).numpy()) / (
        ERROR.numpy().std(axis=(1, 2), keepdims=True) + 1e-6
    )
    assert np.allclose(got, by_hand, atol=1e-5)


def test_whitening_the_batch_keeps_the_clips_apart():
    got = _advantages(whiten="batch", baseline="none").advantage
    assert got.mean().item() == pytest.approx(0, abs=1e-9)
    assert got.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert got.mean((1, 2)).abs().max() > 0.01
