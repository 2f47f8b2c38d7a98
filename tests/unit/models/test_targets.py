"""What is predicted beside all pixels: motion, features of an image encoder, a subset of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from tats_ray.config import TokenGrid, load_config
from tats_ray.config.model import FeatureTargetSettings
from tats_ray.data.clips import Clips
from tats_ray.errors import ConfigError, FeatureEncoderError
from tats_ray.models.features import FeatureEncoder
from tats_ray.models.mae import build_mae
from tats_ray.models.tokens import motion_target, patchify
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import random_clips, tiny_config

CPU = torch.device("cpu")
ENCODER = "vit_tiny_patch16_224"


def test_motion_targets_by_loop():
    motion = np.random.default_rng(0).normal(size=(2, 3, 4, 6, 2)).astype(np.float32)
    for normalize in ("none", "patch", "clip"):
        got = motion_target(torch.from_numpy(motion), normalize).numpy()
        assert got.shape == (2, 3 * 2 * 3, 8)
        for b in range(2):
            for t in range(3):
                for r in range(2):
                    for c in range(3):
                        points = motion[b, t, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].reshape(4, 2)
                        if normalize == "patch":
                            spread = points.std(axis=0, ddof=1) + 1e-6
                            points = (points - points.mean(axis=0)) / spread
                        elif normalize == "clip":
                            points = points / (motion[b].std(ddof=1) + 1e-6)
                        token = t * 6 + r * 3 + c
                        assert np.allclose(got[b, token], points.reshape(-1), atol=1e-5)


def test_patch_normalisation_removes_a_rigid_motion():
    rigid = torch.full((1, 2, 4, 4, 2), 3.0)
    assert motion_target(rigid, "patch").abs().max() == 0
    assert motion_target(rigid, "none").min() == 3


def test_a_subset_of_frames_is_predicted():
    """MAE-ST: of 8 frames 0, 2, 4, 7 (evenly spaced, both ends), one per time slice."""
    config = tiny_config("model.target.frames=4", "model.target.normalize=none")
    mae = build_mae(config.model, config.grid, 0)
    assert mae.decoder.head.out_features == 16 * 16 * 3
    pixels = torch.zeros(1, 3, 8, 32, 32) + torch.arange(8.0).view(1, 1, 8, 1, 1)
    patches = patchify(pixels, 2, 16)
    targets = torch.arange(16)[None]
    target = mae(patches, torch.tensor([[0]]), targets).target
    shown = target.view(4, 4, -1)
    assert (shown == torch.tensor([0.0, 2.0, 4.0, 7.0]).view(4, 1, 1)).all()
    with pytest.raises(ConfigError, match=r"model\.target\.frames 6 must be a multiple of the 4"):
        tiny_config("model.target.frames=6")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A vision transformer with known random weights, as a file."""
    torch.manual_seed(0)
    model = timm.create_model(ENCODER, num_classes=0, img_size=32)
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_file(model.state_dict(), path)
    return path, model.eval()


def test_features_are_standardised_over_the_clip(weights):
    path, model = weights
    section = FeatureTargetSettings(encoder=ENCODER, weights=str(path))
    encoder = FeatureEncoder(section, TokenGrid(4, 2, 2), 32, CPU)
    pixels = torch.rand(2, 3, 8, 32, 32)
    got = encoder(pixels)
    assert got.shape == (2, 16, 192)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        frames = [(pixels[0, :, t].permute(1, 2, 0) - mean) / std for t in (0, 2, 4, 6)]
        tokens = model.forward_features(torch.stack(frames).permute(0, 3, 1, 2))[:, 1:]
    values = tokens.reshape(16, 192)
    wanted = (values - values.mean(0)) / (values.std(0) + 1e-6)
    assert torch.allclose(got[0], wanted, atol=1e-4)


def test_an_encoder_with_other_patches_is_interpolated(weights):
    path, _ = weights
    section = FeatureTargetSettings(encoder=ENCODER, weights=str(path))
    assert FeatureEncoder(section, TokenGrid(4, 4, 4), 32, CPU)(
        torch.rand(1, 3, 4, 32, 32)
    ).shape == (1, 64, 192)


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("vit_of_nobody", None, "timm has no vision transformer 'vit_of_nobody'"),
        (ENCODER, "none.safetensors", "is not a readable safetensors file"),
        ("vit_small_patch16_224", "tiny", "does not fit: 'cls_token' is"),
    ],
)
def test_an_encoder_that_cannot_be_had_is_named(weights, name, file, message):
    path = str(weights[0]) if file == "tiny" else file
    section = FeatureTargetSettings(encoder=name, weights=path)
    with pytest.raises(FeatureEncoderError, match=message):
        FeatureEncoder(section, TokenGrid(4, 2, 2), 32, CPU)


@pytest.mark.parametrize("recipe", ["trackmae_clip_k400", "trackmae_clip_ssv2"])
def test_recipes_name_the_clip_that_openai_published(recipe):
    """Its activation is x sigmoid(1.702 x); with GELU the same weights give other features."""
    path = Path(__file__).resolve().parents[3] / "configs" / "recipes" / f"{recipe}.yaml"
    name = load_config(path, []).model.feature_target.encoder
    model = timm.create_model(name, num_classes=0, depth=1)
    x = torch.linspace(-4, 4, 101)
    assert torch.allclose(model.blocks[0].mlp.act(x), x / (1 + torch.exp(-1.702 * x)), atol=1e-6)
    assert model.pretrained_cfg["mean"] == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)


def _with_motion(config, count, first):
    clips = random_clips(config, count, first=first)
    points = config.motion_grid
    motion = np.random.default_rng(first).normal(0, 0.02, (count, 4, points, points, 2))
    return Clips(
        clips.frames, clips.aspects, clips.stream_indices, clips.first, motion.astype(np.float32)
    )


def test_the_joint_loss_is_the_weighted_sum_and_falls(weights):
    config = tiny_config(
        "masking.system=trackmae", "model.motion_target.weight=0.5", "model.target.weight=2",
        f"model.feature_target.encoder={ENCODER}", f"model.feature_target.weights={weights[0]}",
        "train.base_lr=0.1", "train.warmup_steps=0",
    )  # fmt: skip
    trainer = MAETrainer(config, CPU)
    shared = trainer.mae.decoder.mask_token
    assert trainer.parts.motion_decoder.mask_token is shared
    clips = _with_motion(config, 8, 0)
    for _ in range(25):
        trainer.train_step(clips)
    reports = [report.metrics for report in trainer.reports()]
    for metrics in reports:
        parts = [metrics[f"loss/{name}"] for name in ("pixels", "motion", "features")]
        assert metrics["loss"] == pytest.approx(sum(parts), rel=1e-5)
    for name in ("pixels", "motion", "features"):
        assert reports[-1][f"loss/{name}"] < reports[0][f"loss/{name}"], name


def test_without_pixels_their_decoder_is_left_alone():
    config = tiny_config(
        "masking.system=trackmae", "model.motion_target.weight=1", "model.target.weight=0"
    )
    trainer = MAETrainer(config, CPU)
    before = {k: v.clone() for k, v in trainer.mae.state_dict().items()}
    clips = _with_motion(config, 8, 0)
    trainer.train_step(clips)
    (report,) = trainer.reports()
    assert "loss/pixels" not in report.metrics
    moved = {k for k, v in trainer.mae.state_dict().items() if not torch.equal(v, before[k])}
    assert "decoder.mask_token" in moved
    assert not any(k.startswith(("decoder.blocks", "decoder.head")) for k in moved)
    assert any(k.startswith("encoder.blocks") for k in moved)
