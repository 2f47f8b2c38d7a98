"""Codec vectors become displacements of one frame, whatever the encoder referred to."""

from __future__ import annotations

import numpy as np
import pytest

from tats_ray.data.motion.fields import grid_points
from tats_ray.data.motion.vectors import (
    CodedFrame,
    fill_sources,
    paint_vectors,
    reference_distances,
    vector_fields,
)
from tats_ray.errors import MotionPriorError
from tests.moving_clips import (
    FRAMES,
    HEIGHT,
    STEP,
    WIDTH,
    encode,
    on_square,
    panning_clip,
    square_clip,
    turn_display,
)

GRID = 16
PIXELS = np.array([WIDTH, HEIGHT])
ONE_REFERENCE = {"crf": "17", "refs": "1"}
VARIANTS = {
    "h264": ("mp4", "libx264", 0, ONE_REFERENCE),
    "h264_pyramid": ("mp4", "libx264", 3, {**ONE_REFERENCE, "x264-params": "b-adapt=0"}),
    "h264_b": ("mkv", "libx264", 3, {**ONE_REFERENCE, "x264-params": "b-adapt=0:b-pyramid=none"}),
    "mpeg4": ("avi", "mpeg4", 0, {}),
    "mpeg4_b": ("avi", "mpeg4", 2, {}),
    "mpeg4_b_mp4": ("mp4", "mpeg4", 2, {}),
    "mpeg2": ("mpg", "mpeg2video", 0, {}),
    "mpeg2_b": ("mpg", "mpeg2video", 2, {}),
}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_direction_and_size_are_right_in_every_frame(tmp_path, name):
    suffix, codec, b_frames, options = VARIANTS[name]
    clip = square_clip()
    path = encode(tmp_path / f"clip.{suffix}", clip, codec, b_frames, **options)
    fields = vector_fields(str(path), GRID) * PIXELS
    assert fields.shape == (FRAMES, GRID, GRID, 2)
    points = grid_points(GRID).reshape(GRID, GRID, 2)
    # MPEG-4 B-frames borrow the field of a P-frame up to two frames, here 6 pixels, later.
    tolerance = 0.6 if name.startswith("mpeg4_b") else 0.02
    for number in range(1, 12):  # from 12 on, the last I-frame, some variants only repeat
        inside = on_square(points, number, 12)
        outside = ~on_square(points, number, -24)
        assert np.abs(np.median(fields[number][inside], axis=0) - STEP).max() < tolerance, number
        assert np.abs(fields[number][outside]).mean() < 0.02, number


def test_without_b_frames_vectors_are_exact(tmp_path):
    path = encode(tmp_path / "clip.mp4", panning_clip(), **ONE_REFERENCE)
    inner = vector_fields(str(path), GRID)[:, 2:-2, 2:-2] * PIXELS
    assert np.abs(inner - STEP).max() < 0.02


def test_frames_without_vectors_repeat_the_field_before(tmp_path):
    """I-frames at 0, 6 and 12; the square moves, so other neighbours differ."""
    path = encode(tmp_path / "clip.mp4", square_clip(), **ONE_REFERENCE)
    fields = vector_fields(str(path), GRID)
    same = [bool((fields[i] == fields[i - 1]).all()) for i in range(1, FRAMES)]
    assert [i + 1 for i, equal in enumerate(same) if equal] == [1, 6, 12]


def test_a_prefix_is_the_beginning_of_the_whole(tmp_path):
    path = encode(tmp_path / "clip.mp4", square_clip(), b_frames=3, gop=12)
    whole = vector_fields(str(path), GRID)
    for last in range(FRAMES):
        part = vector_fields(str(path), GRID, last)
        assert len(part) > last
        assert np.array_equal(part[: last + 1], whole[: last + 1]), last


@pytest.mark.parametrize(
    ("suffix", "codec", "named"),
    [("webm", "libvpx-vp9", "vp9"), ("webm", "libvpx", "vp8"), ("avi", "ffv1", "ffv1")],
)
def test_a_codec_without_vectors_is_named_with_the_remedy(tmp_path, suffix, codec, named):
    path = encode(tmp_path / f"clip.{suffix}", panning_clip(3), codec)
    with pytest.raises(MotionPriorError, match=f"codec {named} .*--reencode.*dense_flow") as caught:
        vector_fields(str(path), GRID)
    assert caught.value.path == str(path)


def test_a_video_of_i_frames_has_no_motion_but_a_single_picture_rests(tmp_path):
    path = encode(tmp_path / "clip.mp4", panning_clip(4), gop=1)
    with pytest.raises(MotionPriorError, match="only I-frames"):
        vector_fields(str(path), GRID)
    single = encode(tmp_path / "single.mp4", panning_clip(1))
    assert not vector_fields(str(single), GRID).any()


def test_a_turned_video_and_a_broken_one_are_refused(tmp_path):
    path = encode(tmp_path / "clip.mp4", panning_clip(4))
    turn_display(path)
    with pytest.raises(MotionPriorError, match=r"shown rotated.*--reencode"):
        vector_fields(str(path), GRID)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(MotionPriorError, match="cannot be decoded"):
        vector_fields(str(path), GRID)


def _vectors(*rows):
    names = ["source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale"]
    return np.array(list(rows), dtype=[(name, np.int32) for name in names])


def test_a_vector_fills_its_block_and_nothing_else():
    """A block of 16 x 8 whose centre is (8, 4) came from 6 pixels left and 2 below."""
    past, future = paint_vectors(_vectors((-1, 16, 8, 8, 4, -24, 8, 4)), 32, 32, 8)
    expected = np.zeros((8, 8, 2))
    expected[:2, :4] = [6 / 32, -2 / 32]
    assert np.allclose(past, expected)
    assert not future.any()


def test_two_vectors_of_a_block_are_averaged():
    """From 4 left in the past, towards 8 right in the future: 2 and 4, each half."""
    both = _vectors((-1, 16, 16, 8, 8, -8, 0, 2), (1, 16, 16, 8, 8, 16, 0, 2))
    past, future = paint_vectors(both, 32, 32, 8)
    assert np.allclose(past[:4, :4] * 32, [2, 0])
    assert np.allclose(future[:4, :4] * 32, [4, 0])


def test_blocks_may_reach_over_the_edge():
    """A frame of 20 pixels is coded as 32; only 4 of the second block's columns are seen."""
    past, _ = paint_vectors(_vectors((-1, 16, 16, 24, 8, -20, 0, 1)), 20, 20, 5)
    assert np.allclose(past[:4, 4] * 20, [20, 0])
    assert not past[:, :4].any()
    assert not past[4].any()


def _coded(kinds, stamps=None, vectors=None):
    stamps = stamps or list(range(len(kinds)))
    vectors = vectors or [kind != "I" for kind in kinds]
    return [CodedFrame(k == "B", s, v) for k, s, v in zip(kinds, stamps, vectors, strict=True)]


@pytest.mark.parametrize(
    ("kinds", "order", "past", "future"),
    [
        ("IPPP", [0, 1, 2, 3], [1, 1, 1, 1], [1, 1, 1, 1]),
        ("IBBP", [0, 3, 1, 2], [1, 1, 2, 3], [1, 2, 1, 1]),
        # The middle B-frame is coded before the first: a reference of both others.
        ("IBBBP", [0, 4, 2, 1, 3], [1, 1, 2, 1, 4], [1, 1, 2, 1, 1]),
    ],
)
def test_reference_distances(kinds, order, past, future):
    assert reference_distances(_coded(kinds), order).T.tolist() == [past, future]


def test_without_time_stamps_b_frames_are_no_references():
    frames = _coded("IBBBP", [None] * 5)
    assert reference_distances(frames, [None] * 5).T.tolist() == [[1, 1, 2, 3, 4], [1, 3, 2, 1, 1]]


@pytest.mark.parametrize(
    ("kinds", "vectors", "sources"),
    [
        ("IPPIP", "01101", [1, 1, 2, 2, 4]),
        ("IBBPBI", "000100", [3, 3, 3, 3, 3, 3]),
        ("IPBBP", "01001", [1, 1, 4, 4, 4]),
        ("IPBBI", "01000", [1, 1, 1, 1, 1]),
    ],
)
def test_who_lends_a_field(kinds, vectors, sources):
    frames = _coded(kinds, vectors=[mark == "1" for mark in vectors])
    assert fill_sources(frames).tolist() == sources


def test_nobody_lends_where_there_is_nothing():
    assert fill_sources(_coded("II")) is None
