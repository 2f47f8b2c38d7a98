"""Maskers draw what their systems say they draw."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.masking import MGMSection, System
from tats_ray.data.randomness import Stream, gumbel_rows
from tats_ray.masking.build import build_masker
from tats_ray.masking.frame import FrameMasker
from tats_ray.masking.mgm import MGMMasker
from tats_ray.masking.random import RandomMasker
from tats_ray.masking.sampled import build_sampler
from tats_ray.masking.selection import draw_without_replacement
from tats_ray.masking.trackmae import TrackMAEMasker
from tats_ray.masking.tube import TubeMasker
from tests.conftest import tiny_config

GRID = TokenGrid(4, 3, 3)


def _noise(rows, tokens):
    return torch.from_numpy(gumbel_rows(0, Stream.MASK, 0, rows, tokens))


def _view(config, reads, rows):
    if reads == "tokens":
        return torch.randn(rows, config.grid.tokens, config.model.width)
    if reads == "motion":
        points = config.motion_points
        return torch.randn(rows, config.grid.time, points, points, 2) * 4
    return None


@pytest.mark.parametrize("system", get_args(System))
def test_draws_are_distinct_and_counted(system):
    config = tiny_config(f"masking.system={system}", "masking.adamae.heads=2", "data.size=64")
    sampler = build_sampler(config.masking.sampler, config.model.width, config.grid, 0)
    masker = build_masker(config, sampler)
    visible = masker.select(_noise(50, config.grid.tokens), _view(config, masker.reads, 50))
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


def test_frames_are_visible_whole():
    visible = FrameMasker(GRID, 18).select(_noise(500, GRID.tokens))
    slices = (visible // GRID.per_slice).sort(dim=1).values
    assert torch.equal(slices[:, :9], slices[:, :1].expand(-1, 9))
    assert (slices[:, 0] < slices[:, 9]).all()
    counts = torch.bincount(visible.flatten(), minlength=GRID.tokens)
    assert counts.min() > 0.7 * counts.float().mean()  # every slice has its turn


SQUARE = TokenGrid(3, 6, 6)


def _motion(place, speed=5.0, grid=SQUARE, rows=1):
    """Motion of the four points of one token, at (row, column) or one place per slice."""
    motion = torch.zeros(rows, grid.time, 2 * grid.rows, 2 * grid.columns, 2)
    for time in range(grid.time):
        row, column = place[time] if isinstance(place, list) else place
        motion[:, time, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, 0] = speed
    return motion


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_trackmae_draws_the_share_of_its_bins(ratio):
    rows = 3000
    motion = torch.rand(rows, SQUARE.time, 12, 12, 2) * 0.1
    fast = torch.zeros(6, 6, dtype=torch.bool)
    fast[:3] = True  # the upper half is faster in every clip
    motion[:, :, :6] += 3.0
    visible = TrackMAEMasker(SQUARE, 3 * 8, ratio).select(_noise(rows, SQUARE.tokens), motion)
    tubes = visible.view(rows, 3, 8)
    for time in range(3):
        assert torch.equal(tubes[:, time], tubes[:, 0] + time * 36)
    chosen = fast.flatten()[tubes[:, 0]]
    assert (chosen.sum(dim=1) == int(ratio * 8)).all()
    counts = torch.bincount(tubes[:, 0].flatten(), minlength=36).double()
    for half, share in ((fast.flatten(), ratio), (~fast.flatten(), 1 - ratio)):
        p = share * 8 / 18
        spread = math.sqrt(rows * p * (1 - p)) if 0 < p < 1 else 0.0
        assert (counts[half] - rows * p).abs().max() <= 4.5 * spread


@pytest.mark.parametrize("rule", ["box", "topk"])
def test_mgm_hides_what_moves(rule):
    masker = MGMMasker(SQUARE, 3 * 9, MGMSection(rule=rule, smoothing=0.0))
    for place in [(0, 0), (2, 4), (5, 5), [(1, 1), (2, 2), (3, 3)]]:
        visible = masker.select(_noise(40, SQUARE.tokens), _motion(place, rows=40))
        for time in range(3):
            row, column = place[time] if isinstance(place, list) else place
            assert not (visible == time * 36 + row * 6 + column).any()
        assert (torch.bincount(visible[0] // 36, minlength=3) == 9).all()


def test_mgm_boxes_are_square_and_stay_inside():
    """16 of 36 tokens are masked: a box of 4 x 4, pushed inside where the motion is in a corner."""
    masker = MGMMasker(SQUARE, 3 * 20, MGMSection(smoothing=0.0))
    for (row, column), corner in [((0, 0), (0, 0)), ((5, 5), (2, 2)), ((0, 5), (0, 2))]:
        visible = masker.select(_noise(1, SQUARE.tokens), _motion((row, column)))[0]
        hidden = torch.ones(3, 6, 6, dtype=torch.bool)
        hidden.view(-1)[visible] = False
        wanted = torch.zeros(6, 6, dtype=torch.bool)
        wanted[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4] = True
        assert torch.equal(hidden, wanted.expand(3, 6, 6))


def test_mgm_smooths_the_path_of_its_box():
    jump = [(2, 0), (2, 5), (2, 5)]
    places = []
    for smoothing in (0.0, 0.9):
        masker = MGMMasker(SQUARE, 3 * 27, MGMSection(smoothing=smoothing))
        visible = masker.select(_noise(1, SQUARE.tokens), _motion(jump))[0]
        hidden = torch.ones(3, 36)
        hidden.view(-1)[visible] = 0
        columns = torch.arange(36) % 6
        places.append((hidden * columns).sum(1) / hidden.sum(1))
    assert torch.equal(places[0], torch.tensor([1.0, 4.0, 4.0]))
    assert places[1][1] < 2
    assert places[1][2] < 3


def test_a_still_clip_gets_a_box_that_moves_at_random():
    masker = MGMMasker(SQUARE, 3 * 20, MGMSection())
    still = torch.full((200, 3, 12, 12, 2), 0.01)
    visible = masker.select(_noise(200, SQUARE.tokens), still)
    hidden = torch.ones(200, 108)
    hidden.scatter_(1, visible, 0.0)
    hidden = hidden.view(200, 3, 36)
    assert (hidden.sum(2) == 16).all()
    assert len({tuple(row) for row in hidden[:, 0].tolist()}) >= 8
    assert (hidden[:, 0] != hidden[:, 2]).any(dim=1).float().mean() > 0.5


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
