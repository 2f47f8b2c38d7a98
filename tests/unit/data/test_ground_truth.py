"""Masks of moving objects: named in a list, checked when it is prepared, read with the clip."""

from __future__ import annotations

import numpy as np
import pytest

from tats_ray.data.datasets.lists import list_entries
from tats_ray.data.ground_truth import load_ground_truth
from tats_ray.data.manifest import read_manifest
from tats_ray.data.prepare import prepare
from tats_ray.data.video_writer import write_h264
from tats_ray.errors import ManifestError
from tats_ray.evaluation.held_out import load_held_out, token_cover
from tats_ray.evaluation.splits import fold_splits, places_of, read_folds
from tests.conftest import tiny_config

FRAMES = 12
HEADER = "group,path,mask,label,fold\n"


def _video(folder, name="a", mask=None):
    frames = np.random.default_rng(0).integers(0, 255, (FRAMES, 32, 32, 3), dtype=np.uint8)
    write_h264(folder / f"{name}.mp4", frames, 10)
    np.savez_compressed(folder / f"{name}.npz", mask=_mask() if mask is None else mask)


def _mask():
    """An object in the upper left quarter that moves right, with a soft edge."""
    mask = np.zeros((FRAMES, 32, 32), np.uint8)
    for frame in range(FRAMES):
        mask[frame, :16, frame : 16 + frame] = 255
        mask[frame, 16, frame : 16 + frame] = 100
    return mask


def test_a_list_may_name_its_columns(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(HEADER + 'anna,a.mp4,a.npz,"run, fast",0\nben,b.mp4,,,1\n')
    first, second = list_entries(file)
    assert (first.path, first.mask) == (tmp_path / "a.mp4", tmp_path / "a.npz")
    assert (first.label, first.fold, first.group) == ("run, fast", "0", "anna")
    assert (second.label, second.mask, second.group) == (None, None, "ben")
    file.write_text(HEADER + "anna,a.mp4\n")
    with pytest.raises(ManifestError, match=r"list\.csv:2: 2 fields where the first line names 5"):
        list_entries(file)
    file.write_text(HEADER)
    with pytest.raises(ManifestError, match="is empty"):
        list_entries(file)


def test_a_manifest_carries_masks_and_folds(tmp_path):
    for name in "ab":
        _video(tmp_path, name)
    (tmp_path / "list.csv").write_text(HEADER + "x,a.mp4,a.npz,run,0\ny,b.mp4,b.npz,run,1\n")
    manifest = tmp_path / "m.parquet"
    prepare(list_entries(tmp_path / "list.csv"), manifest)
    rows = read_manifest(manifest).to_pylist()
    assert [row["mask"] for row in rows] == [str(tmp_path / f"{name}.npz") for name in "ab"]
    moving, static = load_ground_truth(rows[0])
    assert np.array_equal(moving, _mask() == 255)
    assert not static.any()
    places = places_of([row["path"] for row in rows], read_folds(manifest), manifest)
    assert [(place.fold, place.group) for place in places] == [("0", "x"), ("1", "y")]
    assert len(fold_splits(places)) == 2


def test_held_out_clips_know_where_real_objects_are(tmp_path):
    _video(tmp_path)
    (tmp_path / "list.csv").write_text("path,mask\na.mp4,a.npz\n")
    prepare(list_entries(tmp_path / "list.csv"), tmp_path / "m.parquet")
    config = tiny_config("data.frames=4", "data.stride=2")
    clips = load_held_out(config, str(tmp_path / "m.parquet"), 4)
    inside = _mask()[[3, 5, 7, 9]] == 255  # the middle window of 12 frames
    assert np.array_equal(clips.objects[0, 0].numpy(), inside)
    assert not clips.objects[0, 1].any()
    reference = np.zeros((2, 2, 2))  # tokens of 2 frames x 16 x 16 pixels
    for time, row, column in np.ndindex(2, 2, 2):
        part = inside[2 * time :, 16 * row :, 16 * column :][:2, :16, :16]
        reference[time, row, column] = part.mean()
    np.testing.assert_allclose(clips.moving[0].numpy(), reference.ravel(), atol=1e-5)
    found = clips.enrichment(clips.moving.topk(2, dim=1).indices)
    best = np.sort(reference.ravel())[-2:].mean()
    assert found.moving == pytest.approx(best / reference.mean(), rel=1e-4)
    assert np.isnan(found.static)
    cover = token_cover(clips.objects[:, 0], 2, 16)
    np.testing.assert_allclose(cover, clips.moving, atol=1e-5)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((FRAMES - 1, 32, 32), np.uint8), r"uint8 \[11, 32, 32\].*each of 12 frames"),
        (np.zeros((FRAMES, 32, 32), np.float32), "is float32"),
        (np.zeros((FRAMES, 32), np.uint8), r"uint8 \[12, 32\]"),
        ("nothing", r"a\.npz: the mask of .*a\.mp4 cannot be read \(FileNotFoundError\)"),
        ("text", "cannot be read"),
        ("pickle", "cannot be read"),
    ],
)
def test_masks_that_do_not_fit_are_found_when_the_manifest_is_made(tmp_path, mask, message):
    _video(tmp_path, mask=mask if isinstance(mask, np.ndarray) else None)
    file = tmp_path / "a.npz"
    if isinstance(mask, str):
        file.unlink()
    if isinstance(mask, str) and mask == "text":
        file.write_text("no archive")
    if isinstance(mask, str) and mask == "pickle":
        np.savez(file, mask=np.array([{}], dtype=object))
    (tmp_path / "list.csv").write_text("path,mask\na.mp4,a.npz\n")
    with pytest.raises(ManifestError, match=message):
        prepare(list_entries(tmp_path / "list.csv"), tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()
