"""Maskers draw what their systems say they draw."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.masking import SYSTEMS, system_class
from tats_ray.data.randomness import Stream, gumbel_rows
from tats_ray.masking.selection import draw_without_replacement, select_visible
from tests.conftest import tiny_config

GRID = TokenGrid(4, 3, 3)


def _noise(rows, tokens):
    return torch.from_numpy(gumbel_rows(0, Stream.MASK, 0, rows, tokens))


def _system(name, grid, visible, **settings):
    """A system that shows as many tokens."""
    system = system_class(name)
    for hidden in range(1, 1000):  # the ratio, in thousandths
        built = system(system.Settings(system=name, ratio=hidden / 1000, **settings), grid)
        if built.count_visible() == visible:
            return built
    raise AssertionError(f"{name} cannot show {visible} tokens of {grid}")


def _view(config, reads, rows):
    if reads == "tokens":
        return torch.randn(rows, config.grid.tokens, config.model.width)
    if reads == "nothing":
        return None
    if reads == "frames":
        return torch.rand(rows, 3, config.data.frames, config.data.size, config.data.size)
    points = config.motion_points
    return torch.randn(rows, config.grid.time, points, points, 2) * 4


@pytest.mark.parametrize("name", SYSTEMS)
def test_draws_are_distinct_and_counted(name):
    config = tiny_config(f"masking.system={name}", "data.size=64")
    system, sampler = config.masking_system, None
    if system.trained_by != "nothing":
        critic = {"critic": False} if system.trained_by == "rollouts" else {}
        sampler = system.build_sampler(config.model.width, **critic)
    view = _view(config, system.reads, 50)
    visible = select_visible(system, _noise(50, config.grid.tokens), view, sampler)
    assert visible.shape == (50, config.visible)
    assert all(len(set(row)) == config.visible for row in visible.tolist())
    assert visible.min() >= 0
    assert visible.max() < config.grid.tokens


def test_random_masks_hit_every_token_alike():
    visible = _system("random", GRID, 9).select(_noise(8000, GRID.tokens), None)
    counts = torch.bincount(visible.flatten(), minlength=GRID.tokens).double()
    expected = 8000 * 9 / GRID.tokens
    # Binomial standard deviation of a token's count.
    assert (counts - expected).abs().max() < 4.5 * math.sqrt(expected * (1 - 9 / GRID.tokens))


def test_tubes_repeat_one_slice():
    visible = _system("tube", GRID, 8).select(_noise(20, GRID.tokens), None)
    slices = visible.view(20, 4, 2)
    for time in range(4):
        assert torch.equal(slices[:, time], slices[:, 0] + time * GRID.per_slice)
    assert len({tuple(sorted(row)) for row in slices[:, 0].tolist()}) > 5


def test_frames_are_visible_whole():
    visible = _system("frame", GRID, 18).select(_noise(500, GRID.tokens), None)
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
    trackmae = _system("trackmae", SQUARE, 3 * 8, motion_ratio=ratio)
    visible = trackmae.select(_noise(rows, SQUARE.tokens), motion)
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


def _fast_places(positions, half):
    """TrackMAE's fast half by loops; the points are at float [T', 2 rows, 2 columns, 2]."""
    rows, columns = positions.shape[1] // 2, positions.shape[2] // 2
    speed = {}
    for row in range(rows):
        for column in range(columns):
            lengths = [
                math.dist(before[2 * row + p][2 * column + q], after[2 * row + p][2 * column + q])
                for before, after in itertools.pairwise(positions.tolist())
                for p in range(2)
                for q in range(2)
            ]
            speed[row * columns + column] = sum(lengths) / len(lengths)
    return set(sorted(speed, key=speed.get, reverse=True)[:half])


@pytest.mark.parametrize(("side", "half"), [(14, 98), (7, 25)])
def test_trackmaes_fast_half_goes_by_the_displacements_that_there_are(side, half):
    """The tracker sees one frame per slice, so the last slice repeats a displacement, which counts
    once; of an odd number of places the fast half is the larger one."""
    grid, rows = TokenGrid(8, side, side), 2
    generator = torch.Generator().manual_seed(0)
    # By fits and starts, so that one displacement more or less decides.
    jumps = torch.randn(rows, 8, 2 * side, 2 * side, 2, generator=generator).pow(3)
    positions = jumps.cumsum(dim=1)
    moves = positions.diff(dim=1)
    motion = torch.cat([moves, moves[:, -1:]], dim=1)
    # All tubes from the fast half, and as many as it has: no chance is left.
    trackmae = _system("trackmae", grid, 8 * half, motion_ratio=1.0)
    tubes = trackmae.select(_noise(rows, grid.tokens), motion).view(rows, 8, half)
    for clip in range(rows):
        assert set(tubes[clip, 0].tolist()) == _fast_places(positions[clip], half)
        twice = torch.cat([positions[clip], positions[clip, -1:] + moves[clip, -1:]])
        assert set(tubes[clip, 0].tolist()) != _fast_places(twice, half)


def test_trackmae_of_one_slice_reads_that_slice():
    grid = TokenGrid(1, 2, 2)
    trackmae = _system("trackmae", grid, 1, motion_ratio=1.0)
    visible = trackmae.select(_noise(40, grid.tokens), _motion((1, 0), grid=grid, rows=40))
    assert (visible == 2).any()


@pytest.mark.parametrize("rule", ["box", "topk"])
def test_mgm_hides_what_moves(rule):
    masker = _system("mgm", SQUARE, 3 * 9, rule=rule, smoothing=0.0)
    for place in [(0, 0), (2, 4), (5, 5), [(1, 1), (2, 2), (3, 3)]]:
        visible = masker.select(_noise(40, SQUARE.tokens), _motion(place, rows=40))
        for time in range(3):
            row, column = place[time] if isinstance(place, list) else place
            assert not (visible == time * 36 + row * 6 + column).any()
        assert (torch.bincount(visible[0] // 36, minlength=3) == 9).all()


def test_mgm_boxes_are_square_and_stay_inside():
    """16 of 36 tokens are masked: a box of 4 x 4, pushed inside where the motion is in a corner."""
    masker = _system("mgm", SQUARE, 3 * 20, smoothing=0.0)
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
        masker = _system("mgm", SQUARE, 3 * 27, smoothing=smoothing)
        visible = masker.select(_noise(1, SQUARE.tokens), _motion(jump))[0]
        hidden = torch.ones(3, 36)
        hidden.view(-1)[visible] = 0
        columns = torch.arange(36) % 6
        places.append((hidden * columns).sum(1) / hidden.sum(1))
    assert torch.equal(places[0], torch.tensor([1.0, 4.0, 4.0]))
    assert places[1][1] < 2
    assert places[1][2] < 3


def test_a_still_clip_gets_a_box_that_moves_at_random():
    masker = _system("mgm", SQUARE, 3 * 20)
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
