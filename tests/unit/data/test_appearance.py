"""RandAugment is one draw per clip; repeats share their frames; labels follow the stream."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.labelled_clips import (
    ClipLabels,
    build_labelled_plan,
    class_index,
    classes_of,
    rand_augment,
)
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import Quarantine, decode_block
from tats_ray.errors import ManifestError
from tests.finetuning import finetune_config

POLICY = "rand-m7-n4-mstd0.5-inc1"


@pytest.fixture(scope="module")
def decoder():
    process = DecoderProcess()
    yield process
    process.close()


def _picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (4, 4, 3)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)


def test_all_frames_of_a_clip_get_the_same_operations():
    still = np.stack([_picture()] * 6)
    clips = [rand_augment(still, POLICY, seed, 32) for seed in range(12)]
    for clip in clips:
        assert all(np.array_equal(clip[0], frame) for frame in clip)
    distinct = {clip[0].tobytes() for clip in clips}
    assert len(distinct) > 8, "clips differ among each other"
    again = [rand_augment(still, POLICY, seed, 32) for seed in range(12)]
    assert all(np.array_equal(one, two) for one, two in zip(clips, again, strict=True))


def test_the_global_generators_are_left_as_they_were():
    random.seed(5)
    np.random.seed(5)
    wanted = (random.random(), np.random.random())
    random.seed(5)
    np.random.seed(5)
    rand_augment(np.stack([_picture()]), POLICY, 3, 32)
    assert (random.random(), np.random.random()) == wanted


def _blocks(synthetic, decoder, *overrides):
    config = finetune_config(*overrides)
    plan = build_labelled_plan(config, read_manifest(synthetic.train))
    return plan, [decode_block(plan, block, decoder, Quarantine()) for block in (0, 5)]


def test_repeats_are_the_same_frames_in_different_appearances(synthetic, decoder):
    _, (plain, _) = _blocks(synthetic, decoder, "data.augment.rand_augment=null")
    assert plain.frames.shape == (4, 8, 32, 32, 3)
    assert np.array_equal(plain.frames[0], plain.frames[1])
    assert not np.array_equal(plain.frames[0], plain.frames[2])
    _, (changed, _) = _blocks(synthetic, decoder)
    _, (again, _) = _blocks(synthetic, decoder)
    assert np.array_equal(changed.frames, again.frames)
    assert not np.array_equal(changed.frames[0], changed.frames[1])


def test_labels_belong_to_the_decoded_videos(synthetic, decoder):
    plan, blocks = _blocks(synthetic, decoder, "data.augment.rand_augment=null")
    classes = classes_of(synthetic.train, plan.manifest)
    rows = class_index(synthetic.train, plan.manifest, classes)
    labels = ClipLabels(rows, plan.seed, plan.data.repeats)
    for block, clips in zip((0, 5), blocks, strict=True):
        wanted = plan.videos(plan.stream_indices(block))["label"].to_pylist()
        found = [classes[number] for number in labels.at(clips.stream_indices)]
        assert found == [label for label in wanted for _ in range(2)]


def test_labels_that_do_not_fit_are_named(synthetic):
    manifest = read_manifest(synthetic.train)
    classes = classes_of(synthetic.train, manifest)
    assert classes == sorted(classes)
    with pytest.raises(ManifestError, match=r"has the label '.*', which is none of the 2 classes"):
        class_index("test.parquet", manifest, classes[:2])
    unlabelled = manifest.set_column(
        manifest.schema.get_field_index("label"), manifest.schema.field("label"),
        [[*manifest["label"].to_pylist()[:-1], None]],
    )  # fmt: skip
    with pytest.raises(ManifestError, match=r"train.parquet: .* has no label"):
        classes_of("train.parquet", unlabelled)
    single = manifest.filter([label == classes[0] for label in manifest["label"].to_pylist()])
    with pytest.raises(ManifestError, match="single class"):
        classes_of("train.parquet", single)
