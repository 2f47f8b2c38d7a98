"""The shipped recipes against the published metrics, which are written out here once more."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tats_ray.config import Config, TokenGrid, load_config
from tats_ray.config.geometry import visible_per_clip, visible_per_slice

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/recipes/*.yaml")])
VIT = sorted(ROOT.glob("configs/tats_vit_*.yaml"))
RECIPES = sorted(ROOT.glob("configs/recipes/*.yaml"))
PUBLISHED = TokenGrid(8, 14, 14)  # 16 x 224 x 224 with tubelets of 2 x 16 x 16

# What a recipe's file name starts with, and the masking system that it must use.
SYSTEMS = {
    "adamae": "adamae",
    "frame": "frame",
    "mae_st": "random",
    "mgm": "mgm",
    "tats": "tats",
    "trackmae": "trackmae",
    "videomae": "tube",
}
VIDEOS = {"k400": 240_000, "ssv2": 168_913, "ucf101": 9_537, "hmdb51": 3_570}
STRIDE = {"k400": 4, "ssv2": 2, "ucf101": 4, "hmdb51": 4}


class Metrics(NamedTuple):
    """Published, or for reconstructions decided, metrics of one recipe."""

    visible: int
    videos_per_step: int
    epochs: int
    warmup_epochs: int
    peak_lr: float


FIGURES = {
    "adamae_k400": Metrics(78, 2048, 800, 40, 1.2e-3),
    "adamae_ssv2": Metrics(78, 2048, 800, 40, 1.2e-3),
    "frame_ssv2": Metrics(196, 2048, 800, 40, 1.2e-3),
    "mae_st_k400": Metrics(156, 128, 100, 5, 8e-4),
    "mgm_reconstructed_k400": Metrics(392, 2048, 800, 40, 1.2e-3),
    "mgm_reconstructed_ssv2": Metrics(392, 2048, 800, 40, 1.2e-3),
    "tats_paper_hmdb51": Metrics(156, 192, 200, 40, 2.25e-4),
    "tats_paper_k400": Metrics(156, 256, 200, 40, 1.5e-4),
    "tats_paper_ssv2": Metrics(156, 256, 200, 40, 1.5e-4),
    "tats_paper_ucf101": Metrics(156, 192, 200, 40, 2.25e-4),
    "trackmae_clip_k400": Metrics(320, 512, 800, 40, 3e-4),
    "trackmae_clip_ssv2": Metrics(320, 512, 800, 40, 3e-4),
    "trackmae_pixel_k400": Metrics(320, 512, 800, 40, 3e-4),
    "videomae_k400": Metrics(160, 2048, 800, 40, 1.2e-3),
    "videomae_reconstructed_hmdb51": Metrics(392, 192, 4800, 40, 2.25e-4),
    "videomae_ssv2": Metrics(160, 2048, 800, 40, 1.2e-3),
    "videomae_ucf101": Metrics(392, 192, 3200, 40, 2.25e-4),
}

every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def recipe(name: str) -> Config:
    return load_config(ROOT / "configs" / "recipes" / f"{name}.yaml", [])


def test_every_recipe_has_its_metrics():
    assert {path.stem for path in RECIPES} == set(FIGURES)


@every_config
def test_the_run_is_named_like_its_file(path):
    assert load_config(path, []).run.name == path.stem


@pytest.mark.parametrize(("ratio", "visible"), [(0.85, 235), (0.90, 156), (0.95, 78)])
def test_visible_per_clip_at_published_geometry(ratio, visible):
    assert visible_per_clip(PUBLISHED.tokens, ratio) == visible


@pytest.mark.parametrize(("ratio", "visible"), [(0.85, 30), (0.90, 20), (0.95, 10)])
def test_visible_per_slice_at_published_geometry(ratio, visible):
    assert visible_per_slice(PUBLISHED.per_slice, ratio) == visible


@every_recipe
def test_geometry_and_visible_tokens(path):
    config = load_config(path, [])
    assert config.grid == PUBLISHED
    assert config.visible == FIGURES[path.stem].visible


@every_recipe
def test_the_masking_system_is_the_one_in_the_name(path):
    system = next(system for prefix, system in SYSTEMS.items() if path.stem.startswith(prefix))
    assert load_config(path, []).masking.system == system


@every_recipe
def test_the_peak_learning_rate_is_the_published_absolute_one(path):
    assert load_config(path, []).train.lr == pytest.approx(FIGURES[path.stem].peak_lr, rel=1e-6)


@every_recipe
def test_steps_are_published_epochs_of_the_dataset(path):
    config, metrics = load_config(path, []), FIGURES[path.stem]
    per_epoch = VIDEOS[path.stem.rsplit("_", 1)[1]] // metrics.videos_per_step
    assert config.train.batch_size == metrics.videos_per_step * config.data.repeats
    assert config.train.steps == metrics.epochs * per_epoch
    assert config.train.warmup_steps == metrics.warmup_epochs * per_epoch


@every_recipe
def test_manifest_and_stride_are_the_datasets(path):
    dataset = path.stem.rsplit("_", 1)[1]
    data = load_config(path, []).data
    assert data.manifest == f"manifests/{dataset}_train.parquet"
    assert data.stride == STRIDE[dataset]


@pytest.mark.parametrize("path", [*RECIPES, *VIT], ids=lambda path: path.stem)
def test_every_value_names_its_source(path):
    bare = [line for line in _values(path, {"model", "masking", "rl", "train"}) if "#" not in line]
    assert bare == []


@every_recipe
def test_reconstructions_say_so_at_the_head(path):
    head = path.read_text(encoding="utf-8").partition("\nrun:")[0]
    assert ("A reconstruction" in head) == (
        "reconstructed" in path.stem or path.stem.startswith("tats_paper")
    )


def test_objectives_as_published():
    """MAE-ST's 8 of 16 frames; TrackMAE's lambda of 1 with pixels and .25 with CLIP."""
    assert recipe("mae_st_k400").model.target.frames == 8
    assert recipe("mae_st_k400").model.target.normalize == "joint"
    assert recipe("mae_st_k400").train.gradient_clip == 0.02
    pixel, clip = recipe("trackmae_pixel_k400").model, recipe("trackmae_clip_k400").model
    assert (pixel.target.weight, pixel.motion_target.weight) == (1.0, 1.0)
    assert pixel.feature_target.encoder is None
    assert (clip.target.weight, clip.motion_target.weight) == (0.0, 0.25)


def test_the_clip_encoder_exists_with_weights():
    timm = pytest.importorskip("timm")
    encoder = recipe("trackmae_clip_k400").model.feature_target.encoder
    assert encoder in timm.list_pretrained("*clip*")


def _values(path: Path, sections: set[str]) -> list[str]:
    """Lines of these sections that set a value."""
    section, values = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].rstrip()
        if text and not text.startswith(" "):
            section = text.removesuffix(":")
        elif text and not text.endswith(":") and section in sections:
            values.append(line.strip())
    return values
