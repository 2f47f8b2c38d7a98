"""Views, their mean, and what counts: every video once, a broken one as missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tats_ray.controller.evaluate import evaluate_classifier, write_accuracy
from tats_ray.data.augment import augment_clips
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.manifest import ManifestRow, write_manifest
from tats_ray.data.sampling import frame_indices, jittered_segment_indices, segment_indices
from tats_ray.data.video_writer import write_h264
from tats_ray.errors import TooManyBrokenVideosError
from tats_ray.evaluation.multi_view import (
    VideoScorer,
    decode_views,
    spatial_views,
    temporal_views,
)
from tats_ray.models.state import model_state
from tats_ray.training.classifier import build_classifier
from tests.finetuning import finetune_config

CPU = torch.device("cpu")
CLASSES = ["bright", "dark"]


def brightness_weights(config) -> dict[str, np.ndarray]:
    """A classifier that is right: its blocks pass on what they get, its first two features are the
    mean brightness and the opposite, and its head compares them."""
    model = build_classifier(config, 2)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.proj.weight.zero_()
            block.mlp.fc2.weight.zero_()
        model.patch_embedding.projection.weight.zero_()
        model.patch_embedding.projection.weight[0] = 1.0
        model.patch_embedding.projection.weight[1] = -1.0
        model.head.weight.zero_()
        model.head.weight[0, 0] = model.head.weight[1, 1] = 1.0
    return model_state(model)


@pytest.fixture(scope="module")
def brightness(tmp_path_factory):
    """Five videos, three dark ones, one of them cut short."""
    folder = tmp_path_factory.mktemp("brightness")
    rows = []
    for number, label in enumerate(["dark", "bright", "dark", "bright", "dark"]):
        file = folder / f"{number}.mp4"
        level = 220 if label == "bright" else 30
        noise = np.random.default_rng(number).integers(-20, 20, (12, 32, 48, 3))
        write_h264(file, (level + noise).astype(np.uint8), 8)
        rows.append(ManifestRow(str(file), label, 12, 8.0, 48, 32))
    broken = folder / "4.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    write_manifest(folder / "test.parquet", rows)
    return folder / "test.parquet"


def test_temporal_views_reach_from_the_first_frame_to_the_last():
    firsts = [frame_indices(50, 8, 2, start) for start in temporal_views(5, "dense")]
    assert [int(frames[0]) for frames in firsts] == [0, 9, 18, 27, 35]
    assert firsts[-1][-1] == 49
    assert temporal_views(1, "dense") == [0.5]


def test_segment_views_interleave():
    """Two sets of one frame per segment, as VideoMAE tests on SSv2."""
    sets = [segment_indices(64, 16, place) for place in temporal_views(2, "segments")]
    assert sets[0].tolist() == [4 * segment for segment in range(16)]
    assert sets[1].tolist() == [4 * segment + 2 for segment in range(16)]
    assert segment_indices(5, 16, 0.5).tolist() == [int((i + 0.5) * 5 / 16) for i in range(16)]


def test_jittered_segments_stay_within_their_segments():
    draws = np.stack([jittered_segment_indices(64, 16, start) for start in (0.1, 0.2, 0.999)])
    assert (draws // 4 == np.arange(16)).all()
    assert len({tuple(draw) for draw in draws.tolist()}) == 3
    assert np.array_equal(draws[0], jittered_segment_indices(64, 16, 0.1))


@pytest.mark.parametrize(
    ("aspect", "wanted"),
    [
        (2.0, [(0, 0, 0.5, 1), (0.25, 0, 0.75, 1), (0.5, 0, 1, 1)]),
        (0.5, [(0, 0, 1, 0.5), (0, 0.25, 1, 0.75), (0, 0.5, 1, 1)]),
    ],
)
def test_spatial_views_lie_along_the_longer_side(aspect, wanted):
    boxes = spatial_views(aspect, 3)
    assert boxes.dtype == np.float32
    assert [tuple(box[:4]) for box in boxes.tolist()] == wanted
    assert not boxes[:, 4].any()
    assert [tuple(box[:4]) for box in spatial_views(aspect, 1).tolist()] == wanted[1:2]


def test_the_mean_of_views_is_that_of_a_loop(brightness):
    config = finetune_config("data.stored_width=48", "views.temporal=3")
    model = build_classifier(config, 4).eval()
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(5))
    scorer = VideoScorer(config, 4, model_state(model), CPU)
    decoder = DecoderProcess()
    frames = decode_views(config, {"path": str(brightness.parent / "1.mp4")}, decoder)
    decoder.close()
    assert frames.shape == (3, 8, 32, 48, 3)
    parts = []
    for clip in frames:
        for box in spatial_views(1.5, 3):
            pixels = augment_clips(torch.from_numpy(clip[None]), torch.from_numpy(box[None]), 32)
            with torch.no_grad():
                parts.append(model(pixels)[0].softmax(dim=0).double())
    got = scorer.score(frames, 1.5)
    assert got.dtype == np.float64
    assert got.sum() == pytest.approx(1.0)
    assert np.allclose(got, torch.stack(parts).mean(dim=0), atol=1e-6)
    assert torch.stack(parts).std(dim=0).max() > 1e-5, "views differ, so the mean says something"


def test_a_right_classifier_is_right_and_a_broken_video_is_missing(brightness, tmp_path):
    config = finetune_config("data.stored_width=48")
    found = evaluate_classifier(config, str(brightness), CLASSES, brightness_weights(config))
    assert (found.videos, found.top1, found.top5) == (4, 1.0, 1.0)
    assert found.per_class == {"bright": 1.0, "dark": 1.0}
    assert found.confusion.tolist() == [[2, 0], [0, 2]]
    ((path, reason),) = found.missing
    assert path == str(brightness.parent / "4.mp4")
    assert reason
    assert found.metrics()["test_videos_missing"] == 1
    write_accuracy(tmp_path, "test", found)
    file, picture = tmp_path / "test.json", tmp_path / "test.png"
    assert '"missing": [{"path": ' in file.read_text()
    assert picture.stat().st_size > 1000


def test_a_constant_classifier_gets_the_share_of_its_class(brightness):
    config = finetune_config("data.stored_width=48")
    weights = brightness_weights(config)
    weights["head.weight"] = np.zeros_like(weights["head.weight"])
    weights["head.bias"] = np.array([0.0, 1.0], dtype=np.float32)
    found = evaluate_classifier(config, str(brightness), CLASSES, weights)
    assert found.top1 == 0.5  # of the four that can be decoded
    assert found.per_class == {"bright": 0.0, "dark": 1.0}


def test_nothing_decodable_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    rows = [ManifestRow(str(tmp_path / "a.mp4"), "dark", 12, 8.0, 48, 32)]
    write_manifest(tmp_path / "test.parquet", rows)
    config = finetune_config()
    with pytest.raises(TooManyBrokenVideosError, match=r"none of the 1 test videos .*a\.mp4"):
        evaluate_classifier(
            config, str(tmp_path / "test.parquet"), CLASSES, brightness_weights(config)
        )
