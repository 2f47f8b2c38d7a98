"""Trackers follow what is known to move, and say what they do with points that they lose."""

from __future__ import annotations

import numpy as np
import pytest

from tats_ray.config.data import SyntheticSettings
from tats_ray.data.motion import trackers
from tats_ray.data.motion.fields import grid_points
from tats_ray.data.motion.trackers import (
    dense_flow,
    point_tracker,
    track_dense_flow,
    track_lucas_kanade,
)
from tats_ray.data.synthetic.scene import Scene, random_scene, render
from tats_ray.errors import MotionPriorError
from tests.moving_clips import HEIGHT, STEP, WIDTH, on_square, panning_clip, square_clip

GRID = 16
PIXELS = np.array([WIDTH, HEIGHT])
TRACKERS = [track_lucas_kanade, track_dense_flow]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_pan_is_followed_to_a_tenth_of_a_pixel(tracker):
    clip = panning_clip(5)
    points = grid_points(GRID)
    places = tracker(clip, points)
    assert places.shape == (5, GRID * GRID, 2)
    assert places.dtype == np.float32
    assert np.array_equal(places[0], points)
    inner = (points > 0.1).all(axis=1) & (places[-1] < 0.9).all(axis=1)
    for number in range(5):
        error = np.abs((places[number] - points)[inner] * PIXELS - STEP * number)
        assert np.median(error) < 0.05
        assert (error < 0.2).mean() > 0.97


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_point_on_the_square_ends_on_it_and_one_beside_it_stays(tracker):
    clip = square_clip(9)
    points = grid_points(GRID)
    moved = (tracker(clip, points)[-1] - points) * PIXELS
    inside = on_square(points, 0, 8)
    assert np.abs(moved[inside] - STEP * 8).max() < 0.5
    far = ~(on_square(points, 0, -24) | on_square(points, 4, -24) | on_square(points, 8, -24))
    assert np.abs(moved[far]).max() < 0.5


def test_a_lost_point_goes_with_its_neighbours_or_rests():
    """A flat patch in a pan gives nothing to follow; nor does a flat clip."""
    clip = panning_clip(3)
    for number in range(3):
        left, top = np.array([84, 52]) + STEP * number
        clip[number, top : top + 24, left : left + 24] = 128
    near = grid_points(8) * 0.25 + [0.375, 0.375]  # 6 pixels apart, around the patch
    centre = np.array([[96 / WIDTH, 64 / HEIGHT]], np.float32)
    points = np.concatenate([centre, near]).astype(np.float32)
    moved = (track_lucas_kanade(clip, points)[-1] - points) * PIXELS
    assert np.abs(moved[0] - 2 * STEP).max() < 1
    flat = np.full((3, HEIGHT, WIDTH, 3), 128, np.uint8)
    assert np.array_equal(track_lucas_kanade(flat, points), np.stack([points] * 3))


def test_a_single_point_and_a_single_frame():
    point = np.array([[0.5, 0.5]], np.float32)
    flat = np.full((2, HEIGHT, WIDTH, 3), 128, np.uint8)
    assert np.array_equal(track_lucas_kanade(flat, point), [point, point])
    for tracker in TRACKERS:
        assert np.array_equal(tracker(flat[:1], point), [point])


def test_dense_flow_is_in_shares_of_the_frame():
    clip = panning_clip(2)
    flow = dense_flow(clip[0], clip[1])
    assert flow.shape == (HEIGHT, WIDTH, 2)
    assert np.abs(np.median(flow[20:-20, 20:-20], axis=(0, 1)) * PIXELS - STEP).max() < 0.05


@pytest.mark.parametrize(("tracker", "share"), [(track_lucas_kanade, 0.7), (track_dense_flow, 0.6)])
def test_synthetic_objects_are_followed(tracker, share):
    """Over 4 steps of 2 frames most points on objects end within 1.5 pixels of the exact place,
    and hardly any would do so had they stayed."""
    near, resting = [], []
    for kind in ("linear", "circle", "zigzag"):
        for seed in range(4):
            scene = random_scene(SyntheticSettings(size=128, frames=9), kind, seed)
            points, exact = _exact_track(scene, 8)
            places = tracker(render(scene).frames[::2], points)[-1]
            near.append(np.linalg.norm(places - exact, axis=1) * 128 < 1.5)
            resting.append(np.linalg.norm(points - exact, axis=1) * 128 < 1.5)
    assert np.concatenate(near).size > 100
    assert np.concatenate(near).mean() > share
    assert np.concatenate(resting).mean() < 0.2


def _exact_track(scene: Scene, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on the uppermost object in frame 0 and their places in a later one, [Q, 2]."""
    size = scene.background.shape[0]
    item = scene.moving[-1]
    points = grid_points(28)
    away = points * size - 0.5 - (item.centre + item.path.offset[0] * size + scene.pan[0])
    away = (away + size / 2) % size - size / 2  # objects wrap around the frame
    turned = np.stack(
        [
            np.cos(item.angle) * away[:, 0] + np.sin(item.angle) * away[:, 1],
            -np.sin(item.angle) * away[:, 0] + np.cos(item.angle) * away[:, 1],
        ],
        axis=1,
    )
    shape = (np.abs(turned / item.half_axes) ** item.exponent).sum(axis=1)
    moved = (item.path.offset[last] - item.path.offset[0]) + (scene.pan[last] - scene.pan[0]) / size
    exact = points + moved
    seen = (shape < 0.6) & (exact > 0.05).all(axis=1) & (exact < 0.95).all(axis=1)
    return points[seen], exact[seen]


STAND_IN = """
import torch

class Predictor(torch.nn.Module):
    def forward(self, video, queries):
        assert video.dtype == torch.float32 and video.max() > 1 and (queries[..., 0] == 0).all()
        steps = torch.arange(video.shape[1], dtype=torch.float32)
        tracks = queries[:, None, :, 1:] + steps[None, :, None, None] * torch.tensor([3.0, 2.0])
        return tracks, torch.ones(tracks.shape[:3], dtype=torch.bool)

def cotracker3_offline(pretrained=True):
    return Predictor()
"""


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """An empty torch.hub cache, and a proxy that nobody answers at."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    trackers._load_cotracker.cache_clear()
    yield tmp_path / "hub"
    trackers._load_cotracker.cache_clear()


def test_cotracker_that_cannot_be_loaded_says_what_to_do(no_network):
    with pytest.raises(MotionPriorError, match=r"torch\.hub\.load\(.*lucas_kanade") as caught:
        point_tracker("cotracker3", "/v/a.mp4")
    assert caught.value.path == "/v/a.mp4"


def test_cotracker_is_found_in_the_cache_and_speaks_pixels(no_network):
    """A stand-in with CoTracker3's interface, where torch.hub keeps a repository."""
    folder = no_network / trackers._COTRACKER.replace("/", "_").replace(":", "_")
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(STAND_IN)
    tracker = point_tracker("cotracker3", "/v/a.mp4")
    points = grid_points(4)
    places = tracker(panning_clip(3), points)
    assert np.allclose(places[0], points, atol=1e-6)
    assert np.allclose((places - points) * PIXELS, np.arange(3)[:, None, None] * STEP, atol=1e-4)
    assert np.array_equal(tracker(panning_clip(1), points), points[None])
