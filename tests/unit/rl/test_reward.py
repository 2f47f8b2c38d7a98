"""Rewards, baselines and whitening."""

import dataclasses

import numpy as np
import pytest
import torch

from tats_ray.config.rl import RLSettings
from tats_ray.data.clips import Clips
from tats_ray.rl.ppo import compute_advantages
from tats_ray.training.policy import build_environment
from tests.conftest import random_clips, tiny_config

ERROR = torch.rand(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
VALUE = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


PER_TOKEN = {
    "credit_level": "token", "log_prob_over": "masked", "reward_sign": 1, "baseline": "critic",
    "whiten": "clip",
}  # fmt: skip


def _advantages(**settings):
    section = RLSettings(draws_per_clip=3, **(PER_TOKEN | settings))
    return compute_advantages(ERROR, VALUE, section)


@pytest.mark.parametrize("sign", [1, -1])
def test_critic_baseline_without_whitening_is_reward_minus_value(sign):
    got = _advantages(reward_sign=sign, whiten="none")
    assert torch.allclose(got.advantage, sign * ERROR - VALUE.view(4, 1, 1))
    assert torch.allclose(got.value_target, sign * ERROR.mean((1, 2)))


def test_set_credit_has_one_number_per_draw():
    got = _advantages(credit_level="set", baseline="none", whiten="none")
    assert torch.allclose(got.advantage, ERROR.mean(2))


def test_group_baseline_centres_the_draws_of_a_clip():
    got = _advantages(credit_level="set", baseline="group", whiten="none")
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


def test_beyond_copy_bounds_the_error_by_that_of_a_copy():
    """A resting texture earns nothing; a token that changes keeps its reconstruction error."""
    clips = random_clips(tiny_config(), 4)
    frames = np.repeat(clips.frames[:, :1], clips.frames.shape[1], axis=1)
    frames[:, 4:, :16, :16] = 255 - frames[:, 4:, :16, :16][..., ::-1, :]  # token (0, 0) changes
    still = Clips(frames, clips.aspects, clips.stream_indices, 0)
    visible = torch.tensor([[3, 7, 11, 15]]).expand(4, -1)
    errors = {}
    for reward in ("error", "copy_clipped_error"):
        config = tiny_config(f"rl.reward={reward}")
        environment = build_environment(config, torch.device("cpu"))
        environment.observe(still)
        targets, errors[reward] = environment.score(visible)
    place = targets[0] % 4
    assert (errors["error"] > 0.1).all()
    assert errors["copy_clipped_error"][:, place != 0].max() == 0
    assert (
        errors["copy_clipped_error"].max() == 0
    )  # each change has a slice beside it that is the same
    frames[:, 4:6, :16, :16] = 128 + 7 * np.arange(16)[:, None, None]  # now one that has none
    environment.observe(Clips(frames, clips.aspects, clips.stream_indices, 0))
    _, bounded = environment.score(visible)
    changed = (targets[0] == 8).nonzero().item()
    assert (bounded[:, changed] > 0.1).all()
    assert (bounded[:, changed] <= 4).all()


def test_a_share_of_the_masked_tokens_is_scored():
    """With cross-attention a token's error does not depend on which others are predicted."""
    cross = "model.decoder.attention=cross"
    whole = build_environment(tiny_config(cross), torch.device("cpu"))
    part = build_environment(tiny_config(cross, "rl.reward_fraction=0.3"), torch.device("cpu"))
    clips = random_clips(tiny_config(), 4)
    visible = torch.tensor([[0, 5, 10, 15], [3, 7, 11, 2], [1, 2, 3, 4], [8, 9, 14, 15]])
    seen = set()
    for first in range(0, 80, 4):
        shown = dataclasses.replace(clips, first=first)
        whole.observe(shown)
        part.observe(shown)
        everything, errors = whole.score(visible)
        targets, error = part.score(visible)
        assert targets.shape == (4, 3)  # of 12 masked tokens
        places = (everything[:, None, :] == targets[..., None]).int().argmax(dim=2)
        assert torch.equal(everything.gather(1, places), targets)
        assert torch.allclose(errors.gather(1, places), error, atol=1e-6)
        seen |= set(targets[0].tolist())
    assert seen == set(everything[0].tolist()), "each is scored now and then"


def test_token_sets_of_a_clip_are_compared_on_the_same_tokens():
    """Where two sets differ in one token, what is scored differs in one token at most."""
    config = tiny_config("rl.reward_fraction=0.3")
    environment = build_environment(config, torch.device("cpu"))
    environment.observe(random_clips(config, 1))
    sets = torch.tensor([[0, 5, 10, other] for other in (1, 2, 3, 4, 6, 7, 8, 9, 11, 12)])
    scored = [set(environment.score(visible[None])[0][0].tolist()) for visible in sets]
    assert all(len(one - other) <= 1 for one in scored for other in scored)
    assert len({frozenset(one) for one in scored}) > 1, "a visible token is not scored"
