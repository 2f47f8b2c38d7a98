"""The motion of a clip: slices, strides, held frames."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tats_ray.data.motion.fields import (
    area_average,
    clip_steps,
    follow_fields,
    grid_points,
    sample_field,
    track_queries,
    track_slices,
    upsample_tracks,
)
from tats_ray.data.motion.prior import MotionRequest, clips_motion
from tats_ray.errors import MotionPriorError
from tats_ray.models.tokens import motion_target
from tests.moving_clips import (
    FRAMES,
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
SOURCES = ["vectors", "lucas_kanade", "dense_flow"]


@pytest.fixture(scope="module")
def panning(tmp_path_factory):
    return str(encode(tmp_path_factory.mktemp("pan") / "pan ü.mp4", panning_clip(), refs="1"))


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    return str(encode(tmp_path_factory.mktemp("square") / "square.avi", square_clip(), "mpeg4"))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("form", "stride", "step"), [("field", 1, 1), ("field", 2, 2), ("tracks", 1, 2)]
)
def test_a_pan_in_every_source_and_form(panning, source, form, stride, step):
    """A field tells the displacement per clip frame, tracks that per time slice of 2 frames."""
    motion = motion_of(panning, panning_clip(), np.arange(1, 1 + 6 * stride, stride), source, form)
    assert motion.shape == (3, GRID, GRID, 2)
    assert motion.dtype == np.float32
    inner = motion[:, 3:-3, 3:-3] * PIXELS
    assert np.abs(np.median(inner, axis=(1, 2)) - STEP * step).max() < 0.1
    assert (np.abs(inner - STEP * step) < 0.5).mean() > 0.97


@pytest.mark.parametrize("source", SOURCES)
def test_a_tracked_point_stays_on_the_square(square, source):
    """Points are followed over frames 0, 2, 4 and 6 from their places in frame 0. Those that are
    interpolated between points 8 pixels apart count where both lie 10 pixels inside."""
    motion = motion_of(square, square_clip(), np.arange(8), source, "tracks", grid=48)
    points = grid_points(48)
    places = points + motion[:3].sum(axis=0).reshape(-1, 2)
    inside = on_square(points, 0, 18)
    assert inside.sum() > 4
    # Blocks of 16 pixels and the grid blur the square's edges.
    tolerance = 1.5 if source == "vectors" else 0.1
    assert np.abs((places - points)[inside] * PIXELS - 6 * STEP).max() < tolerance
    assert on_square(places, 6, 4)[inside].all()
    assert np.array_equal(motion[3], motion[2])


@pytest.mark.parametrize("source", SOURCES)
def test_a_field_is_where_the_square_is(square, source):
    motion = motion_of(square, square_clip(), np.arange(8), source)
    points = grid_points(GRID).reshape(GRID, GRID, 2)
    for number in range(4):
        inside = on_square(points, 2 * number + 1, 12)
        beside = ~(on_square(points, 2 * number, -24) | on_square(points, 2 * number + 1, -24))
        assert np.abs(np.median(motion[number][inside], axis=0) * PIXELS - STEP).max() < 0.2
        assert np.abs(motion[number][beside] * PIXELS).mean() < 0.1


@pytest.mark.parametrize("source", SOURCES)
def test_pictures_of_another_aspect_have_the_samemotion_of(panning, source):
    """Canvas frames are squeezed; displacements are shares of the frame."""
    clip = panning_clip()
    squeezed = np.ascontiguousarray(clip[:, :, ::2])
    motion = motion_of(panning, squeezed, np.arange(6), source)
    assert np.abs(np.median(motion, axis=(0, 1, 2)) * PIXELS - STEP).max() < 0.2


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("form", ["field", "tracks"])
def test_a_held_last_frame_rests(panning, source, form):
    motion = motion_of(panning, panning_clip(), [11, 12, 13, 13, 13, 13], source, form)
    assert np.abs(np.median(motion[0], axis=(0, 1)) * PIXELS).min() > 1.5
    assert not np.abs(motion[2] * PIXELS).max() > 0.05


@pytest.mark.parametrize("source", SOURCES)
def test_clips_of_one_frame_and_of_one_slice(panning, source):
    clip = panning_clip()
    assert not motion_of(panning, clip, [3], source, "field", tubelet=1).any()
    assert not motion_of(panning, clip, [3], source, "tracks", tubelet=1).any()
    assert not motion_of(panning, clip, [3, 4], source, "tracks", tubelet=2).any()


def test_frames_that_the_container_promised_rest_up_to_a_limit(panning):
    clip = np.concatenate([panning_clip(), panning_clip(4)])
    motion = motion_of(panning, clip, np.arange(10, 16))
    assert not motion[2].any()
    with pytest.raises(MotionPriorError, match=r"14 frames.*frame 16.*--reencode"):
        motion_of(panning, clip, np.arange(11, 17))


def test_steps_are_sums_over_the_frames_between():
    fields = np.arange(8, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 2), np.float32)
    steps = clip_steps(fields, np.array([1, 3, 6, 6]))
    assert steps[:, 0, 0, 0].tolist() == [5, 5, 15, 0]


def test_points_follow_the_field_where_they_are():
    """To the right in the upper half, downwards in the lower one."""
    fields = np.zeros((3, 4, 4, 2), np.float32)
    fields[1:, :2, :, 0] = 0.25
    fields[1:, 2:, :, 1] = 0.25
    positions = follow_fields(fields, np.array([0, 1, 2]), grid_points(4))
    points = grid_points(4)
    assert np.allclose(positions[2][0], points[0] + [0.5, 0])
    assert np.allclose(positions[2][8], points[8] + [0, 0.5])
    assert positions.shape == (3, 16, 2)
    slices = track_slices(positions)
    assert np.allclose(slices[:, 2, 1], [0, 0.25])


def _published_upsampling(positions, grid):
    """TrackMAE's: trilinear with the number of frames kept, corners on corners; float64."""
    side = math.isqrt(positions.shape[1])
    maps = torch.from_numpy(positions).double().reshape(1, -1, side, side, 2).permute(0, 4, 1, 2, 3)
    size = (len(positions), grid, grid)
    wide = F.interpolate(maps, size=size, mode="trilinear", align_corners=True)
    return wide.permute(0, 2, 3, 4, 1)[0].numpy()


@pytest.mark.parametrize("grid", [2, 7, 28])
def test_tracks_between_the_followed_points_are_the_published_ones(grid):
    """Also after each token's mean and deviation are taken out, which leaves what points differ
    by: .3 pixels of noise stand for a tracker's."""
    rng = np.random.default_rng(0)
    points = track_queries(grid)
    steps = rng.normal([0.01, -0.004], 0.3 / 224, (8, *points.shape))
    positions = (points + np.cumsum(steps, axis=0)).astype(np.float32)
    moves = np.diff(_published_upsampling(positions, grid), axis=0)
    wanted = np.concatenate([moves, moves[-1:]])
    got = upsample_tracks(track_slices(positions), grid)
    assert got.dtype == np.float32
    assert np.abs(got - wanted).max() < 2e-7
    if grid == 28:
        target, reference = (motion_target(torch.from_numpy(m)[None] * 224, "patch")
                             for m in (got, wanted))  # fmt: skip
        assert F.cosine_similarity(target, reference, dim=2).min() > 0.9999


def test_interpolated_tracks_stand_at_the_places_of_the_grid():
    """A zoom moves every point in proportion to its place, up to the outermost ones."""
    points = grid_points(28)
    fields = np.stack([np.zeros((28, 28, 2)), 0.1 * points.reshape(28, 28, 2)]).astype(np.float32)
    positions = follow_fields(fields, np.array([0, 1]), track_queries(28))
    assert positions.shape == (2, 14 * 14, 2)
    moved = upsample_tracks(track_slices(positions), 28)[0].reshape(-1, 2)
    assert np.allclose(moved, 0.1 * points, atol=1e-6)


def test_lookup_is_bilinear_and_holds_at_the_edges():
    field = np.array([[[0, 0], [4, 0]], [[0, 8], [4, 8]]], np.float32)
    points = np.array([[0.5, 0.5], [0.25, 0.25], [0.375, 0.75], [-1, 2]], np.float32)
    assert sample_field(field, points).tolist() == [[2, 4], [0, 0], [1, 8], [0, 8]]


def test_area_averages_weigh_by_overlap():
    """Squares of 4 pixels over a frame of 10: the last shows 2; cells are 5 wide."""
    raster = np.zeros((3, 3, 2))
    raster[:, :, 0] = [0, 10, 5]
    means = area_average(raster, 4, 10, 10, 2)
    assert np.allclose(means[..., 0], [[2, 8], [2, 8]])


def test_importing_pulls_in_no_heavy_library():
    script = (
        "import sys, tats_ray.data.motion.prior, tats_ray.data.motion.cache\n"
        "print({'torch', 'ray', 'cv2', 'av', 'decord'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_real_videos(shared_data):
    """Codecs with vectors give finite, moderate motion; the others one typed error each."""
    refused = set()
    for path in sorted((shared_data / "robust" / "odd_valid").iterdir()):
        request = MotionRequest("vectors", "field", GRID, 1, None)
        indices = np.array([[0, 1, 2]])
        frames = np.zeros((1, 3, 8, 8, 3), np.uint8)
        try:
            motion = clips_motion(request, str(path), frames, indices)
        except MotionPriorError:
            refused.add(path.stem.removeprefix("derived_").removeprefix("decord_"))
            continue
        assert np.abs(motion).max() < 0.5, path
    assert refused == {"av1", "hevc", "mjpeg", "vp8", "vp9", "video_90", "video_180", "video_270"}


assert FRAMES == 14  # the frame numbers above count on it


def test_a_run_that_needs_opencv_is_refused_before_its_videos_are_read(tmp_path):
    """Where the extra is not installed each video would look broken."""
    script = (
        "import sys; sys.modules['cv2'] = None\n"
        "from tats_ray.cli.prepare import prepare_data_main as prepare\n"
        "from tats_ray.cli.train import pretrain_main as pretrain\n"
        f"print(prepare(['{tmp_path}', 'm', '--motion', 'dense_flow', '--motion-folder', 'f']))\n"
        f"print(pretrain(['--config', 'recipe:demo', 'run.output_dir={tmp_path}', "
        "'masking.system=trackmae', 'cluster.mode=serial', 'data.synthetic.clips=2', "
        "'data.synthetic.held_out_clips=2']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["2", "2"]
    first, second = done.stderr.splitlines()
    assert first.startswith("error: --motion dense_flow needs OpenCV, which cannot be imported (")
    assert second.startswith("error: data.motion.source=lucas_kanade needs OpenCV, which cannot be")
    assert first.endswith(": pip install 'tats-ray[motion]'") and second.endswith("[motion]'")
