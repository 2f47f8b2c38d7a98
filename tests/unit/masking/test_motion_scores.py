"""`difference` and `codec` show the tokens that a reference in NumPy scores highest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tats_ray.config.geometry import TokenGrid
from tats_ray.data.randomness import Stream, gumbel_rows
from tats_ray.errors import ConfigError
from tats_ray.masking.codec import Codec
from tats_ray.masking.difference import Difference, DifferenceSettings, camera_shift, token_change
from tats_ray.masking.selection import draw_from_top
from tests.conftest import random_clips, tiny_config

GRID = TokenGrid(4, 4, 6)
TUBELET, PATCH = 2, 4
SHAPE = (GRID.time * TUBELET, GRID.rows * PATCH, GRID.columns * PATCH)


def _noise(rows, tokens):
    return torch.from_numpy(gumbel_rows(0, Stream.MASK, 0, rows, tokens))


def _frames(rows, seed=0):
    return np.random.default_rng(seed).random((rows, 3, *SHAPE), dtype=np.float32)


def _reference(clip, shifts=None):
    """Score of each token by loops over its pixels, float64 [T', rows, columns].

    Args:
        clip: [3, T, H, W].
        shifts: (down, right) from the frame before to each frame, [T, 2].
    """
    score = np.zeros((GRID.time, GRID.rows, GRID.columns))
    _, time, height, width = clip.shape
    for frame in range(time):
        before = frame - TUBELET if frame >= TUBELET else frame + TUBELET
        down, right = (0, 0) if shifts is None else shifts[frame]
        for row in range(height):
            for column in range(width):
                y, x = row - down, column - right
                if 0 <= y < height and 0 <= x < width:
                    change = clip[:, frame, row, column] - clip[:, before, y, x]
                    place = frame // TUBELET, row // PATCH, column // PATCH
                    score[place] += np.mean(np.square(change, dtype=np.float64))
    return score / (TUBELET * PATCH * PATCH)


def test_the_difference_is_that_of_the_pixels_at_the_same_place():
    frames = _frames(2)
    change = token_change(torch.from_numpy(frames), GRID, compensate=False)
    for clip, scores in zip(frames, change, strict=True):
        np.testing.assert_allclose(scores.numpy(), _reference(clip).ravel(), rtol=1e-5)
    assert not token_change(torch.from_numpy(frames), TokenGrid(1, 4, 6), False).any()


def _panned(step):
    """A clip of a fixed texture that moves by `step` pixels (down, right) from frame to frame, with
    an object of another texture that stays where it is in the picture."""
    rng = np.random.default_rng(1)
    time, height, width = SHAPE
    world = rng.random((3, 3 * height, 3 * width), dtype=np.float32)
    clip = np.empty((3, *SHAPE), np.float32)
    for frame in range(time):
        top, left = height - frame * step[0], width - frame * step[1]
        clip[:, frame] = world[:, top : top + height, left : left + width]
    clip[:, :, 4:8, 12:16] = rng.random((3, 1, 4, 4))
    return clip


@pytest.mark.parametrize("step", [(0, 0), (1, 0), (0, -2), (2, 3)])
def test_the_cameras_motion_is_found_and_taken_out(step):
    clip = _panned(step)
    shifts = np.array([[TUBELET * side for side in step]] * SHAPE[0])
    shifts[:TUBELET] *= -1  # the first slice is compared with the second
    grey = torch.from_numpy(clip.mean(axis=0))
    before = torch.cat([grey[TUBELET : 2 * TUBELET], grey[:-TUBELET]])
    assert camera_shift(grey, before).tolist() == shifts.tolist()
    change = token_change(torch.from_numpy(clip)[None], GRID, compensate=True)[0]
    np.testing.assert_allclose(change.numpy(), _reference(clip, shifts).ravel(), rtol=1e-5)
    if step != (0, 0):
        best = change.topk(GRID.time).indices
        assert (1 * 6 + 3) in (best % GRID.per_slice).tolist(), "the object moves against the rest"


def _peak(after, before):
    """Shift at the peak of the phase correlation of two pictures, in NumPy."""
    spectra = [np.fft.fft2(one - one.mean()) for one in (after, before)]
    cross = spectra[0] * spectra[1].conj()
    place = np.fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9)).real.argmax()
    shifts = zip(np.unravel_index(place, after.shape), after.shape, strict=True)
    return [int((one + side // 2) % side - side // 2) for one, side in shifts]


def test_a_textured_object_is_not_taken_for_the_camera():
    """It has the highest peak of the correlation; the smooth background at rest has more pixels."""
    before = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1))
    after = before.copy()
    texture = np.random.default_rng(2).random((16, 16))
    before[8:24, 4:20] = after[8:24, 10:26] = texture
    assert _peak(after, before) == [0, 6]
    pair = (torch.from_numpy(after)[None], torch.from_numpy(before)[None])
    assert camera_shift(*pair).tolist() == [[0, 0]]


def test_a_clip_is_scored_alike_in_every_batch():
    frames = torch.from_numpy(_frames(5))
    whole = token_change(frames, GRID, compensate=True)
    parts = [token_change(part, GRID, compensate=True) for part in frames.split([2, 1, 2])]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("compensate", [False, True])
def test_the_visible_tokens_are_drawn_evenly_from_those_that_differ_most(compensate):
    settings = DifferenceSettings(system="difference", ratio=0.9, compensate=compensate)
    system, rows = Difference(settings, GRID), 4000
    frames = torch.from_numpy(_frames(1)).expand(rows, -1, -1, -1, -1)
    score = token_change(frames[:1], GRID, compensate)[0].numpy()
    best = set(np.argsort(-score)[:29].tolist())  # .3 of 96
    visible = system.select(_noise(rows, GRID.tokens), frames)
    assert visible.shape == (rows, 9)
    assert system.count_visible() == 9
    assert all(len(set(row)) == 9 for row in visible.tolist())
    counts = np.bincount(visible.flatten().numpy(), minlength=GRID.tokens)
    assert set(np.flatnonzero(counts).tolist()) == best
    expected = rows * 9 / 29
    assert np.abs(counts[sorted(best)] - expected).max() < 4.5 * np.sqrt(expected * 20 / 29)


def test_equal_scores_are_left_to_chance():
    score = torch.zeros(3000, 12)
    score[:, 5] = 1.0
    drawn = draw_from_top(score, _noise(3000, 12), candidates=4, count=4)
    counts = torch.bincount(drawn.flatten(), minlength=12)
    assert counts[5] == 3000
    others = counts[torch.arange(12) != 5].double()
    assert (others - 3000 * 3 / 11).abs().max() < 4.5 * np.sqrt(3000 * 3 / 11 * 8 / 11)


def test_codec_shows_what_moves_against_the_median_vector():
    rng = np.random.default_rng(3)
    camera = np.array([7.0, -3.0])
    motion = camera + rng.normal(size=(3, GRID.time, 2 * GRID.rows, 2 * GRID.columns, 2))
    system = Codec(Codec.Settings(system="codec", ratio=0.75), GRID)
    visible = system.select(_noise(3, GRID.tokens), torch.from_numpy(motion))
    for clip, shown in zip(motion, visible.tolist(), strict=True):
        score = {}
        for time in range(GRID.time):
            ordered = np.sort(clip[time].reshape(-1, 2), axis=0)
            median = ordered[(len(ordered) - 1) // 2]  # the lower of the two in the middle
            for row in range(GRID.rows):
                for column in range(GRID.columns):
                    points = clip[time, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                    lengths = np.hypot(*(points - median).reshape(-1, 2).T)
                    token = time * GRID.per_slice + row * GRID.columns + column
                    score[token] = lengths.mean()
        assert set(shown) == set(sorted(score, key=score.get, reverse=True)[:24])


def test_a_still_stream_shows_random_tokens():
    still = torch.zeros(500, GRID.time, 2 * GRID.rows, 2 * GRID.columns, 2)
    visible = Codec(Codec.Settings(ratio=0.75), GRID).select(_noise(500, GRID.tokens), still)
    counts = torch.bincount(visible.flatten(), minlength=GRID.tokens)
    assert counts.min() > 80  # 125 expected


def test_too_few_candidates_are_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"set masking\.candidates=0\.5 or more"):
        tiny_config("masking.system=difference", "masking.ratio=0.5")


def test_a_training_step_reads_the_augmented_frames():
    from tats_ray.training.mae_trainer import MAETrainer

    config = tiny_config("masking.system=difference", "masking.candidates=0.25")
    trainer, clips = MAETrainer(config, torch.device("cpu")), random_clips(config, 4)
    pixels = torch.from_numpy(clips.frames).permute(0, 4, 1, 2, 3).float() / 255
    best = token_change(pixels, config.grid, False).topk(config.visible, dim=1).indices
    assert torch.equal(trainer.visible(clips, None).sort(1).values, best.sort(1).values)
