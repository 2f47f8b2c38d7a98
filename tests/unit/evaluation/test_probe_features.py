"""Frozen features against the model's own forward, and their cache."""

from __future__ import annotations

import dataclasses
import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tats_ray.config import TokenGrid
from tats_ray.data.augment import augment_clips
from tats_ray.data.decode import decode_clips
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import clip_request
from tats_ray.errors import FeatureCacheError, NonFiniteError, TooManyBrokenVideosError
from tats_ray.evaluation.feature_cache import (
    cache_file,
    feature_key,
    read_features,
    write_features,
)
from tats_ray.evaluation.features import (
    ExtractionPlan,
    VideoFeatures,
    extract_serially,
    gather,
    pool_tokens,
)
from tats_ray.models.mae import build_mae
from tats_ray.models.state import model_state
from tests.conftest import tiny_config

CPU = torch.device("cpu")
CENTRE = torch.tensor([[0.25, 0.0, 0.75, 1.0, 0.0]])  # of frames twice as wide as high


@pytest.fixture(scope="module")
def mae():
    config = tiny_config()
    return build_mae(config.model, config.grid, seed=3).eval()


def _plan(synthetic, mae, videos=6, **changes):
    config = tiny_config("data.broken_share=0.5")
    manifest = read_manifest(synthetic.train).slice(0, videos)
    plan = ExtractionPlan(
        config.data,
        config.model,
        config.grid,
        model_state(mae),
        1,
        None,
        [1, 1, 1],
        False,
        manifest,
    )
    return dataclasses.replace(plan, **changes)


def _extract(plan):
    return gather(plan, extract_serially(plan, CPU))


def _wide(manifest):
    """The same videos, said to be twice as wide as high."""
    place = manifest.column_names.index("width")
    width = pa.array([2 * row for row in manifest["height"].to_pylist()])
    return manifest.set_column(place, manifest.field("width"), width)


def _with_broken(manifest, row, path):
    paths = manifest["path"].to_pylist()
    paths[row] = str(path)
    place = manifest.column_names.index("path")
    return manifest.set_column(place, manifest.field("path"), pa.array(paths))


@torch.no_grad()
def _forward(plan, mae, path, starts, block=None):
    """All tokens visible, by the model's public forward; mean over clips of mean over tokens."""
    frames = decode_clips(clip_request(plan.data, None, {"path": path}, starts)).frames
    boxes = CENTRE.expand(len(frames), -1)
    patches = mae.patches(augment_clips(torch.tensor(frames), boxes, plan.data.size))
    seen = []
    watched = mae.encoder.norm if block is None else mae.encoder.blocks[block - 1]
    handle = watched.register_forward_hook(lambda module, given, output: seen.append(output))
    mae.encode(patches, torch.arange(plan.grid.tokens).expand(len(frames), -1))
    handle.remove()
    return seen[0].mean(dim=1).mean(dim=0).numpy()


@pytest.mark.parametrize("layer", [None, 1, 2])
@pytest.mark.parametrize(("views", "starts"), [(1, [0.5]), (3, [0.0, 0.5, 1 - 1e-12])])
def test_features_are_the_models_own(synthetic, mae, layer, views, starts):
    plan = _plan(synthetic, mae, videos=3, views=views, layer=layer)
    plan = dataclasses.replace(plan, manifest=_wide(plan.manifest))
    found = _extract(plan)
    assert found.missing == {}
    for path, features in zip(plan.manifest["path"].to_pylist(), found.features, strict=True):
        wanted = _forward(plan, mae, path, starts, layer)
        np.testing.assert_allclose(features, wanted, rtol=1e-5, atol=1e-6)
    assert np.ptp(found.features, axis=0).max() > 1e-3  # videos differ


def test_blocks_do_not_change_features(synthetic, mae):
    plan = _plan(synthetic, mae)
    whole = plan.data.model_copy(update={"block_clips": 64})
    apart = plan.data.model_copy(update={"block_clips": 1})
    one, many = (dataclasses.replace(plan, data=data) for data in (whole, apart))
    assert (one.blocks, many.blocks) == (1, 6)
    np.testing.assert_array_equal(_extract(one).features, _extract(many).features)


def test_a_broken_video_is_missing_and_changes_no_other(synthetic, mae, tmp_path):
    plan = _plan(synthetic, mae)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    found = _extract(dataclasses.replace(plan, manifest=_with_broken(plan.manifest, 2, broken)))
    assert list(found.missing) == [str(broken)]
    whole = _extract(plan).features
    keep = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(found.features[keep], whole[keep])
    assert not found.features[2].any()


def test_too_many_broken_videos_end_it(synthetic, mae, tmp_path):
    plan = _plan(synthetic, mae, videos=2)
    manifest = _with_broken(_with_broken(plan.manifest, 0, tmp_path / "a"), 1, tmp_path / "b")
    with pytest.raises(TooManyBrokenVideosError, match="2 of 2 videos"):
        _extract(dataclasses.replace(plan, manifest=manifest))


def test_features_that_are_not_finite_are_named(synthetic, mae):
    weights = model_state(mae)
    weights["encoder.norm.bias"][0] = np.nan
    plan = _plan(synthetic, mae, videos=1, weights=weights)
    with pytest.raises(NonFiniteError, match=r"\.mp4: the encoder gives features"):
        _extract(plan)


def test_the_key_follows_everything_that_features_follow_from(synthetic, mae, tmp_path):
    plan = _plan(synthetic, mae, videos=2)
    encoder, decoder = dict(plan.weights), dict(plan.weights)
    encoder["encoder.norm.bias"] = encoder["encoder.norm.bias"] + 1
    decoder["decoder.norm.bias"] = decoder["decoder.norm.bias"] + 1

    def key(**changes):
        return feature_key(dataclasses.replace(plan, **changes))

    def data(**changes):
        return plan.data.model_copy(update=changes)

    assert key() == key(weights=decoder) == key(data=data(block_clips=1, decode_seconds=9.0))
    others = {
        key(weights=encoder), key(views=2), key(layer=1), key(data=data(stride=2)),
        key(data=data(stored_width=48)), key(manifest=plan.manifest.slice(0, 1)),
        key(manifest=_wide(plan.manifest)),
    }  # fmt: skip
    assert len(others | {key()}) == 8


def test_the_key_follows_the_videos_themselves(synthetic, mae, tmp_path):
    plan = _plan(synthetic, mae, videos=1)
    copy = tmp_path / "copy.mp4"
    shutil.copy(plan.manifest["path"][0].as_py(), copy)
    plan = dataclasses.replace(plan, manifest=_with_broken(plan.manifest, 0, copy))
    before = feature_key(plan)
    assert feature_key(plan) == before
    os.utime(copy, ns=(1, 1))
    changed = feature_key(plan)
    copy.unlink()
    assert len({before, changed, feature_key(plan)}) == 3


FOUND = VideoFeatures(np.arange(6, dtype=np.float32).reshape(3, 2), {"/b.mp4": "is empty"})
KEY = "a1" * 32


def test_the_cache_gives_back_what_was_written(tmp_path):
    assert read_features(tmp_path, KEY, 3) is None
    write_features(tmp_path, KEY, FOUND)
    again = read_features(tmp_path, KEY, 3)
    np.testing.assert_array_equal(again.features, FOUND.features)
    assert again.missing == FOUND.missing
    assert len(list(tmp_path.iterdir())) == 1  # nothing is left aside


def test_a_file_of_another_key_is_not_used(tmp_path):
    write_features(tmp_path, KEY, FOUND)
    other = KEY[:-1] + "f"
    assert cache_file(tmp_path, other) == cache_file(tmp_path, KEY)
    assert read_features(tmp_path, other, 3) is None
    save_file({"features": FOUND.features}, cache_file(tmp_path, KEY))  # foreign, without a key
    assert read_features(tmp_path, KEY, 3) is None


def _poison(file):
    """Other numbers under the old header."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _poison,
        lambda file: file.write_bytes(file.read_bytes()[:-3]),
        lambda file: file.write_bytes(b""),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, damage):
    write_features(tmp_path, KEY, FOUND)
    file = cache_file(tmp_path, KEY)
    damage(file)
    with pytest.raises(FeatureCacheError, match=rf"{file.name}: is damaged .*; delete it"):
        read_features(tmp_path, KEY, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_cache_that_is_not_finite_is_damaged(tmp_path, value):
    odd = FOUND.features.copy()
    odd[1, 1] = value
    write_features(tmp_path, KEY, VideoFeatures(odd, {}))
    with pytest.raises(FeatureCacheError, match="not finite"):
        read_features(tmp_path, KEY, 3)


def test_a_file_of_another_length_is_damaged(tmp_path):
    write_features(tmp_path, KEY, FOUND)
    assert len(load_file(cache_file(tmp_path, KEY))["features"]) == 3
    with pytest.raises(FeatureCacheError):
        read_features(tmp_path, KEY, 4)


def test_pooling_in_cells_averages_each_cells_tokens_and_changes():
    """4 slices of 2 x 2 tokens, one feature: t + 10 x row + 100 x column; the last slice rests."""
    grid = TokenGrid(4, 2, 2)
    time = torch.tensor([0.0, 1.0, 3.0, 3.0])
    rows, columns = torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")
    tokens = (time[:, None, None] + 10 * rows + 100 * columns).reshape(1, 16, 1)
    whole = pool_tokens(tokens, grid, [1, 1, 1], change=False)
    assert whole.tolist() == [[1.75 + 5 + 50]]
    halves = pool_tokens(tokens, grid, [2, 1, 2], change=False)
    assert halves.tolist() == [[5.5, 105.5, 8.0, 108.0]]
    changed = pool_tokens(tokens, grid, [1, 1, 2], change=True)
    assert changed.tolist() == [[6.75, 106.75, 1.0, 1.0]]  # steps of 1, 2 and 0


def test_change_tells_what_the_mean_over_time_cancels():
    grid = TokenGrid(4, 1, 1)
    still, shaking = torch.zeros(1, 4, 1), torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1)
    means = [pool_tokens(tokens, grid, [1, 1, 1], change=True) for tokens in (still, shaking)]
    assert [found.tolist() for found in means] == [[[0.0, 0.0]], [[0.0, 2.0]]]


def test_features_in_cells_are_as_wide_as_planned_and_cached_apart(synthetic, mae):
    plan = _plan(synthetic, mae, videos=2)
    cells = dataclasses.replace(plan, pool=[2, 2, 1], change=True)
    found = _extract(cells)
    assert found.features.shape == (2, 24 * 2 * 2 * 2) == (2, cells.width)
    assert feature_key(cells) != feature_key(plan)
    assert feature_key(cells) != feature_key(dataclasses.replace(cells, change=False))
    halves = found.features[:, : 24 * 4].reshape(2, 24, 4).mean(axis=2)
    np.testing.assert_allclose(halves, _extract(plan).features, rtol=1e-4, atol=1e-5)
