"""The synthetic set: labels told by motion alone, truth that lies on the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from tats_ray.config.data import SyntheticSettings
from tats_ray.data.decode import DecodeRequest, decode_clips
from tats_ray.data.ground_truth import load_ground_truth
from tats_ray.data.manifest import read_manifest
from tats_ray.data.synthetic.generate import ensure_synthetic
from tats_ray.data.synthetic.scene import (
    CLASSES,
    DIRECTIONS,
    FRAMES_PER_SECOND,
    KINDS,
    motion_path,
    random_scene,
    random_texture,
    render,
    sample_texture,
)
from tats_ray.data.video_writer import write_h264
from tats_ray.errors import StorageError
from tests.conftest import tiny_config

SECTION = tiny_config().data.synthetic
STILL = SECTION.model_copy(update={"panning_share": 0.0})


def test_paths_of_all_kinds_cross_at_the_reference_frame():
    """The same seed puts every kind's object at the same place in one frame; its place there is
    uniform, so no single frame tells the kind."""
    for seed in range(20):
        kinds = [kind for classes in CLASSES.values() for kind in classes]
        paths = [motion_path(np.random.default_rng(seed), kind, 12, (0.02, 0.05)) for kind in kinds]
        at_rest = [np.abs(path.offset).sum(1) + np.abs(path.angle) for path in paths]
        common = set.intersection(*(set(np.flatnonzero(rest < 1e-12)) for rest in at_rest))
        assert common, f"seed {seed}"


def test_directions_are_told_by_the_sector_of_the_path():
    """Image rows grow downwards; 36 of each direction's 45 degrees are used, evenly."""
    for number, kind in enumerate(DIRECTIONS):
        turns = []
        for seed in range(50):
            path = motion_path(np.random.default_rng(seed), kind, 12, (0.02, 0.05))
            x, y = path.offset[-1] - path.offset[0]
            turns.append((np.degrees(np.arctan2(y, x)) - 45 * number + 180) % 360 - 180)
        assert max(np.abs(turns)) <= 18
        assert max(turns) > 12
        assert min(turns) < -12


def test_scenes_of_one_seed_differ_in_motion_only():
    """With one object there is a frame that is the same picture for every kind."""
    single = STILL.model_copy(update={"moving_objects": 1})
    clips = [render(random_scene(single, kind, 5)).frames for kind in KINDS]
    same = [len({clip[index].tobytes() for clip in clips}) == 1 for index in range(len(clips[0]))]
    assert any(same)
    assert not all(same)


def test_mean_place_and_speed_do_not_tell_the_kind():
    """Over many scenes the share of moving pixels in each quadrant is a quarter for every kind."""
    for kind in KINDS:
        cover = np.zeros((2, 2))
        for seed in range(60):
            moving = render(random_scene(STILL, kind, seed)).moving[0]
            cover += moving.reshape(2, 16, 2, 16).sum(axis=(1, 3))
        share = cover / cover.sum()
        assert np.abs(share - 0.25).max() < 0.12, kind


@pytest.mark.parametrize("kind", list(KINDS))
def test_moving_pixels_change_and_static_ones_do_not(kind):
    for seed in range(6):
        clip = render(random_scene(STILL, kind, seed))
        change = np.abs(np.diff(clip.frames.astype(int), axis=0)).max(axis=3)
        untouched = ~(clip.moving[1:] | clip.moving[:-1])
        # Away from moving objects and their soft rims nothing changes.
        rim = np.zeros_like(untouched)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                rim |= np.roll(clip.moving[1:] | clip.moving[:-1], (dy, dx), axis=(1, 2))
        assert change[~rim].max() == 0
        assert not (clip.moving & clip.static).any()
        assert clip.moving.any(axis=(1, 2)).all()
        assert untouched.any()


def test_moving_objects_do_move():
    for kind in KINDS:
        changed = []
        for seed in range(8):
            clip = render(random_scene(STILL, kind, seed))
            change = np.abs(clip.frames[6].astype(int) - clip.frames[0]).max(axis=2)
            changed.append(change[clip.moving[0] | clip.moving[6]].mean())
        assert np.mean(changed) > 8, kind


def test_look_alikes_wear_the_moving_objects_textures():
    scene = random_scene(SECTION, "linear", 3)
    for still, moving in zip(scene.static, scene.moving, strict=True):
        assert np.array_equal(still.texture, moving.texture)


def test_panning_carries_background_and_look_alikes_along():
    panning = SECTION.model_copy(update={"panning_share": 1.0})
    scene = random_scene(panning, "linear", 3)
    clip = render(scene)
    step = scene.pan[-1]
    assert np.hypot(*step) > 0
    shift = np.round(step).astype(int)
    moved = np.roll(clip.static[0], (shift[1], shift[0]), axis=(0, 1))
    seen = clip.static[-1] & ~clip.moving[-1]
    # Up to a pixel's rounding and what moving objects cover.
    assert (moved & seen).sum() > 0.6 * seen.sum()


def test_textures_are_periodic_and_of_the_asked_contrast():
    texture = random_texture(np.random.default_rng(0), 64, 0.1)
    assert texture.std(axis=(0, 1)).mean() == pytest.approx(0.1, rel=0.1)
    rows, columns = np.mgrid[:64, :64].astype(float)
    assert np.allclose(sample_texture(texture, columns, rows), texture, atol=1e-6)
    assert np.allclose(sample_texture(texture, columns + 64, rows - 64), texture, atol=1e-6)


def test_files_manifest_and_truth_agree(synthetic):
    rows = read_manifest(synthetic.train).to_pylist()
    assert len(rows) == SECTION.clips
    assert {row["label"] for row in rows} == set(KINDS)
    for seed, row in enumerate(rows[:6]):
        clip = render(random_scene(SECTION, row["label"], seed))
        moving, static = load_ground_truth(row)
        assert np.array_equal(moving, clip.moving)
        assert np.array_equal(static, clip.static)
        decoded = decode_clips(
            DecodeRequest(row["path"], SECTION.frames, 1, [0.0], 32, 32, "auto")
        ).frames[0]
        # H.264 halves the colour resolution; luma is close.
        error = (decoded.astype(float) - clip.frames).mean(axis=3)
        assert np.sqrt((error**2).mean()) < 6


def test_train_and_held_out_do_not_overlap_and_the_set_is_made_once(synthetic, tmp_path):
    train, held_out = (read_manifest(path) for path in (synthetic.train, synthetic.held_out))
    assert not set(train["path"].to_pylist()) & set(held_out["path"].to_pylist())
    small = SECTION.model_copy(update={"clips": 2, "held_out_clips": 1})
    first = ensure_synthetic(small, tmp_path)
    stamp = first.train.stat().st_mtime_ns
    assert ensure_synthetic(small, tmp_path).train.stat().st_mtime_ns == stamp
    other = ensure_synthetic(small.model_copy(update={"speed": [0.03, 0.05]}), tmp_path)
    assert other.train != first.train


def test_a_folder_of_other_files_is_left_as_it_is(tmp_path):
    section = SyntheticSettings(clips=2, held_out_clips=1, frames=4)
    name = ensure_synthetic(section, tmp_path / "made").train.parent.name
    folder = tmp_path / "mine" / "synthetic" / name
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("keep")
    with pytest.raises(StorageError, match=rf"{name}: .*it holds other files: move them"):
        ensure_synthetic(section, tmp_path / "mine")
    assert sorted(path.name for path in folder.parent.rglob("*")) == [name, "notes.txt"]


def test_the_same_settings_give_the_same_bytes(tmp_path):
    """x264's lookahead thread, left on, changed one small video in twenty."""
    section = SECTION.model_copy(update={"clips": 1, "held_out_clips": 1})
    frames = render(random_scene(section, "down", 2050)).frames
    files = [tmp_path / f"{number}.mp4" for number in range(100)]
    for number, file in enumerate(files):
        np.random.default_rng(number).random(1000 * (number + 1))  # stirs the heap
        write_h264(file, frames, FRAMES_PER_SECOND)
    assert len({file.read_bytes() for file in files}) == 1
