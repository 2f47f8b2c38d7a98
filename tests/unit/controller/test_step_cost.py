"""Counted operations against a count by hand."""

from __future__ import annotations

import pytest

from tats_ray.controller.step_cost import equal_cost_steps, step_flops
from tests.conftest import tiny_config


def _linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs


def _block(tokens: int, width: int) -> int:
    """Queries, keys and values, two products of attention, projection, and 4 x wide layers."""
    attention = 2 * _linear(tokens, width, tokens)
    return _linear(tokens, width, 12 * width) + attention


def test_a_step_of_random_masking_is_three_forward_passes_of_the_autoencoder():
    """16 tokens, 4 of them visible; 2 blocks of width 24, a decoder of one of width 16.

    Backward costs twice as much as forward, but the patches need no gradient, and visible tokens
    at the decoder's head are dropped.
    """
    config = tiny_config("masking.system=random")
    values = 2 * 16 * 16 * 3
    embedding = _linear(4, values, 24)
    inside = 2 * _block(4, 24) + _linear(4, 24, 16) + _block(16, 16) + _linear(12, 16, values)
    by_hand = config.train.batch_size * (2 * embedding + 3 * inside)
    assert step_flops(config) == pytest.approx(by_hand, rel=1e-3)


def test_a_learned_sampler_costs_more():
    assert step_flops(tiny_config()) > 1.2 * step_flops(tiny_config("masking.system=random"))


def test_only_clips_that_are_rolled_out_cost_rollouts_and_ppo():
    """The others cost one pass of the sampler."""
    whole, half, none = (
        step_flops(tiny_config(*overrides))
        for overrides in ([], ["rl.rollout_fraction=0.5"], ["masking.system=random"])
    )
    assert none + 0.5 * (whole - none) < half < none + 0.7 * (whole - none)


def test_steps_at_equal_cost():
    assert equal_cost_steps(100, reference=2.0, cost=2.0) == 100
    assert equal_cost_steps(100, reference=2.0, cost=3.0) == 67
    assert equal_cost_steps(1, reference=1.0, cost=100.0) == 1
