"""The cache of a video's motion: what it must be made of, and what it gives."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tats_ray.data.motion.cache import cache_file, cache_motion
from tats_ray.data.motion.fields import grid_points
from tats_ray.errors import MotionPriorError
from tests.moving_clips import (
    GRID,
    HEIGHT,
    STEP,
    WIDTH,
    encode,
    motion_of,
    on_square,
    panning_clip,
    square_clip,
)

PIXELS = np.array([WIDTH, HEIGHT])


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    return str(encode(tmp_path_factory.mktemp("square") / "square.avi", square_clip(), "mpeg4"))


@pytest.fixture
def cached(square, tmp_path):
    folder = str(tmp_path / "motion")
    assert cache_motion([square], "vectors", GRID, folder) == []
    return folder


@pytest.mark.parametrize("form", ["field", "tracks"])
def test_cached_vectors_are_the_computed_ones(square, cached, form):
    for indices in (np.arange(8), np.arange(0, 14, 2)[:6], [10, 12, 13, 13]):
        direct = motion_of(square, square_clip(), indices, form=form)
        assert np.array_equal(
            motion_of(square, square_clip(), indices, form=form, cache=cached), direct
        )


@pytest.mark.parametrize("source", ["lucas_kanade", "dense_flow"])
@pytest.mark.parametrize("form", ["field", "tracks"])
def test_other_sources_can_be_cached(square, tmp_path, source, form):
    """Cached fields of frame pairs, followed over a stride of 2, find the square as well."""
    folder = str(tmp_path / "motion")
    grid, margin = (GRID, 12) if form == "field" else (48, 20)
    assert cache_motion([square], source, grid, folder) == []
    indices = np.arange(0, 12, 2)
    motion = motion_of(square, square_clip(), indices, source, form, cache=folder, grid=grid)
    inside = on_square(grid_points(grid), 0, margin).reshape(grid, grid)
    expected = STEP * (2 if form == "field" else 4)
    assert np.abs(np.median(motion[0][inside], axis=0) * PIXELS - expected).max() < 0.5


def _edit_header(folder, path, **changes):
    file = cache_file(folder, path)
    with np.load(file) as stored:
        header, fields = json.loads(stored["header"].tobytes()), stored["fields"]
    encoded = np.frombuffer(json.dumps({**header, **changes}).encode(), np.uint8)
    np.savez(file, header=encoded, fields=fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 0}, "has format 0, not 1"),
        ({"source": "dense_flow"}, "has source dense_flow, not vectors"),
        ({"grid": 14}, "has grid 14, not 16"),
        ({"bytes": 1}, "has changed since"),
        ({"mtime_ns": 1}, "has changed since"),
        ({"frames": 3}, "cannot be read"),
    ],
)
def test_a_cache_of_something_else_is_refused(square, cached, changes, message):
    _edit_header(cached, square, **changes)
    with pytest.raises(MotionPriorError, match=rf"{message}.*--motion vectors") as caught:
        motion_of(square, square_clip(), np.arange(8), cache=cached)
    assert caught.value.path == square


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_motion_that_is_not_finite_is_refused(square, cached, value):
    file = cache_file(cached, square)
    with np.load(file) as stored:
        content = dict(stored)
    content["fields"][3, 2, 1, 0] = value
    np.savez(file, **content)
    with pytest.raises(MotionPriorError, match=rf"{file.name} is not finite.*--motion ") as caught:
        motion_of(square, square_clip(), np.arange(8), cache=cached)
    assert caught.value.path == square


def test_a_missing_or_damaged_cache_is_refused(square, cached):
    file = cache_file(cached, square)
    for content in (file.read_bytes()[:-200], b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(MotionPriorError, match=r"cannot be read.*--motion-folder"):
            motion_of(square, square_clip(), np.arange(8), cache=cached)
    np.save(file.with_suffix(".npy"), np.array([{}], dtype=object))
    file.with_suffix(".npy").replace(file)
    with pytest.raises(MotionPriorError, match="cannot be read"):
        motion_of(square, square_clip(), np.arange(8), cache=cached)
    file.unlink()
    with pytest.raises(MotionPriorError, match=r"is not in .*--motion-grid 16"):
        motion_of(square, square_clip(), np.arange(8), cache=cached)


def test_caching_again_keeps_what_is_valid_and_renews_the_rest(tmp_path):
    folder = str(tmp_path / "motion")
    paths = [str(encode(tmp_path / name, panning_clip(4))) for name in ("a.mp4", "b.mp4")]
    paths.append(str(encode(tmp_path / "c.webm", panning_clip(4), "libvpx-vp9")))
    (failure,) = cache_motion(paths, "vectors", GRID, folder)
    assert failure.path == paths[2]
    assert "codec vp9" in failure.reason
    before = [cache_file(folder, path).stat().st_mtime_ns for path in paths[:2]]
    os.utime(paths[1])
    cache_motion(paths[:2], "vectors", GRID, folder)
    after = [cache_file(folder, path).stat().st_mtime_ns for path in paths[:2]]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]
    assert len(list((tmp_path / "motion").iterdir())) == 2
