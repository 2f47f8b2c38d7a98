"""Enrichment of single videos: what stands still, what lies in the middle, and what DAVIS shows."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tats_ray.cli.evaluation import enrichment_main
from tats_ray.config.geometry import TokenGrid
from tats_ray.controller.pretrain import pretrain
from tats_ray.evaluation.held_out import HeldOut, token_cover
from tats_ray.evaluation.inspection import Inspector
from tats_ray.evaluation.sequence_enrichment import (
    SequenceEnrichment,
    centre_distance,
    fixed_enrichment,
    freeze,
    mean_over_sequences,
    sequence_enrichment,
)
from tats_ray.tracking.pictures import outlined
from tats_ray.training.checkpoint import RunState
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config


def _clips(config, moving_by):
    """A textured square that moves right over a texture at rest."""
    generator = torch.Generator().manual_seed(0)
    frames, size = config.data.frames, config.data.size
    pixels = torch.rand(3, 1, size, size, generator=generator).repeat(1, frames, 1, 1)
    square = torch.rand(3, 8, 8, generator=generator)
    objects = torch.zeros(1, frames, size, size, dtype=torch.bool)
    for frame in range(frames):
        place = frame * moving_by
        pixels[:, frame, 0:8, place : place + 8] = square
        objects[0, frame, 0:8, place : place + 8] = True
    moving = token_cover(objects, config.model.tubelet, config.model.patch)
    return HeldOut(pixels[None], None, moving, torch.zeros_like(moving), objects)


def test_a_masker_of_motion_is_enriched_until_the_clip_stands_still():
    config = tiny_config(
        "masking.system=difference",
        "data.size=64", "data.stored_height=64", "data.stored_width=64", "model.patch=8",
        "masking.ratio=0.97", "masking.candidates=0.0274",  # all candidates
    )  # fmt: skip
    clips = _clips(config, moving_by=4)
    inspector = Inspector(config, RunState(MAETrainer(config, torch.device("cpu")).state(), None))
    (found,) = sequence_enrichment(inspector, clips)
    # Slices 0 and 1 differ from each other alike: which one's tokens come first is left to chance.
    assert found.masks == pytest.approx(found.difference, rel=0.25)
    assert found.masks > 20
    assert found.frozen < 0.3 * found.masks
    assert found.compensated == pytest.approx(found.difference)
    assert found.centre == 0.0


def test_a_frozen_clip_repeats_its_middle_frame_and_object():
    config = tiny_config()
    clips = _clips(config, moving_by=2)
    still = freeze(clips, config.model.tubelet, config.model.patch)
    for frame in range(config.data.frames):
        assert torch.equal(still.pixels[0, :, frame], clips.pixels[0, :, 4])
        assert torch.equal(still.objects[0, frame], clips.objects[0, 4])
    assert torch.equal(still.moving, token_cover(still.objects, 2, 16))


def test_the_centre_prior_goes_outwards_from_the_middle():
    grid = TokenGrid(2, 3, 5)
    distance = centre_distance(grid)
    order = distance.argsort().tolist()
    assert set(order[:2]) == {7, 22}  # the middle of both slices
    far = np.hypot(*(np.indices((3, 5)) - np.array([1, 2])[:, None, None])).ravel()
    assert np.allclose(distance.numpy(), np.tile(far, 2), atol=2e-4)


def test_the_mean_leaves_out_clips_without_an_object():
    values = [SequenceEnrichment(1.0, 2.0, 3.0, 4.0, 5.0), SequenceEnrichment(*[math.nan] * 5)]
    assert mean_over_sequences(values) == values[0]


def test_outlines_are_the_rim_of_the_object():
    objects = torch.zeros(1, 6, 6, dtype=torch.bool)
    objects[0, 1:5, 1:5] = True
    drawn = outlined(torch.zeros(3, 1, 6, 6), objects)
    rim = objects.clone()
    rim[0, 2:4, 2:4] = False
    assert torch.equal(drawn[1].bool(), rim)
    assert not drawn[[0, 2]].any()


def test_the_command_writes_figures_and_pictures_of_each_video(synthetic, tmp_path, capsys):
    config = tiny_config(
        "run.name=demo", f"run.output_dir={tmp_path}", f"data.manifest={synthetic.train}",
        "masking.system=random", "tracking.mlflow=false", "train.steps=1",
    )  # fmt: skip
    pretrain(config, must_resume=False)
    assert enrichment_main([str(tmp_path / "demo"), str(synthetic.held_out)]) == 0
    folder = tmp_path / "demo" / "enrichment" / "held_out"
    report = json.loads((folder / "enrichment.json").read_text())
    assert report["step"] == 1
    assert len(report["enrichment"]) == 6 + 1
    mean = report["enrichment"]["mean"]
    assert set(mean) == {"masks", "frozen", "centre", "difference", "compensated"}
    assert 0.6 < mean["masks"] < 1.4  # chance
    assert len(list(folder.glob("*.png"))) == 6
    assert np.asarray(Image.open(next(folder.glob("*.png")))).size
    assert "compensated" in capsys.readouterr().out


def test_on_real_video_the_centre_is_hard_to_beat_and_the_camera_has_to_be_taken_out(shared_data):
    """Frames of 128 x 224, 10 % of the tokens of 2 x 16 x 16 pixels, 12 sequences."""
    import cv2

    davis, found = shared_data / "davis", []
    with (davis / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        video, frames = cv2.VideoCapture(str(davis / row["path"])), []
        while (read := video.read())[0]:
            frames.append(cv2.resize(read[1], (224, 128), interpolation=cv2.INTER_AREA))
        first = (len(frames) - 16) // 2
        with np.load(davis / row["mask"]) as stored:
            masks = stored["mask"][first : first + 16]
        shown = [cv2.resize(mask, (224, 128), interpolation=cv2.INTER_AREA) for mask in masks]
        objects = torch.from_numpy(np.stack(shown) > 127)[None]
        pixels = torch.from_numpy(np.stack(frames[first : first + 16])).float() / 255
        cover = token_cover(objects, 2, 16)
        clips = HeldOut(pixels.permute(3, 0, 1, 2)[None], None, cover, None, objects)
        found.append(fixed_enrichment(clips, TokenGrid(8, 8, 14), 89))
    mean = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert mean["centre"] == pytest.approx(4.4, abs=0.3)
    assert mean["difference"] == pytest.approx(2.9, abs=0.4)
    assert mean["compensated"] > mean["centre"] + 1.0
