"""Maskers draw what their systems say they draw."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tats_ray.config.geometry import TokenGrid
from tats_ray.data.randomness import Stream, gumbel_rows
from tats_ray.masking.build import build_masker
from tats_ray.masking.random import RandomMasker
from tats_ray.masking.selection import draw_without_replacement
from tats_ray.masking.tube import TubeMasker
from tats_ray.models.sampler import build_sampler
from tests.conftest import tiny_config

GRID = TokenGrid(4, 3, 3)


def _noise(rows, tokens):
    return torch.from_numpy(gumbel_rows(0, Stream.MASK, 0, rows, tokens))


@pytest.mark.parametrize("system", ["random", "tube", "tats"])
def test_draws_are_distinct_and_counted(system):
    config = tiny_config(f"masking.system={system}")
    sampler = build_sampler(config.masking.sampler, config.model.width, config.grid, 0)
    masker = build_masker(config, sampler)
    tokens = torch.randn(50, config.grid.tokens, config.model.width)
    visible = masker.select(_noise(50, config.grid.tokens), tokens)
    assert visible.shape == (50, config.visible)
    assert all(len(set(row)) == config.visible for row in visible.tolist())
    assert visible.min() >= 0
    assert visible.max() < config.grid.tokens


def test_random_masks_hit_every_token_alike():
    visible = RandomMasker(9).select(_noise(8000, GRID.tokens))
    counts = torch.bincount(visible.flatten(), minlength=GRID.tokens).double()
    expected = 8000 * 9 / GRID.tokens
    # Binomial standard deviation of a token's count.
    assert (counts - expected).abs().max() < 4.5 * math.sqrt(expected * (1 - 9 / GRID.tokens))


def test_tubes_repeat_one_slice():
    visible = TubeMasker(GRID, 8).select(_noise(20, GRID.tokens))
    slices = visible.view(20, 4, 2)
    for time in range(4):
        assert torch.equal(slices[:, time], slices[:, 0] + time * GRID.per_slice)
    assert len({tuple(sorted(row)) for row in slices[:, 0].tolist()}) > 5


def test_gumbel_top_k_draws_in_plackett_luce_order():
    """Frequencies of all ordered pairs of four tokens against enumeration, by chi-square."""
    probs = torch.tensor([0.5, 0.25, 0.15, 0.1])
    draws = 60_000
    drawn = draw_without_replacement(probs.log().expand(draws, 4), _noise(draws, 4), 2).numpy()
    statistic = 0.0
    for first, second in itertools.permutations(range(4), 2):
        p = probs[first] * probs[second] / (1 - probs[first])
        expected = draws * p.item()
        seen = np.sum((drawn[:, 0] == first) & (drawn[:, 1] == second))
        statistic += (seen - expected) ** 2 / expected
    assert statistic < 31.3  # chi-square, 11 degrees of freedom, p = .001
