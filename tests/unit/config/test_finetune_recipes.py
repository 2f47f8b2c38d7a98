"""The fine-tuning recipes against VideoMAE's metrics, written out here once more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import load_as, load_config
from tats_ray.errors import ConfigError
from tests.finetuning import TINY_FINETUNE

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted(ROOT.glob("configs/finetune/*.yaml"))


class Metrics(NamedTuple):
    """Published metrics of one recipe; the rate is the absolute peak."""

    videos: int
    per_step: int
    repeats: int
    epochs: int
    lr: float
    final_lr: float
    layer_decay: float
    drop_path: float
    views: tuple[int, int]


FIGURES = {
    "k400": Metrics(240_000, 512, 1, 100, 2e-3, 2e-6, 0.75, 0.1, (5, 3)),
    "ssv2": Metrics(168_913, 512, 1, 50, 1e-3, 2e-6, 0.75, 0.1, (2, 3)),
    "ucf101": Metrics(9_537, 128, 2, 100, 2.5e-4, 5e-6, 0.7, 0.2, (5, 3)),
    "hmdb51": Metrics(3_570, 128, 2, 100, 2.5e-4, 5e-6, 0.7, 0.2, (5, 3)),
}


def recipe(name: str) -> FinetuneConfig:
    return load_as(FinetuneConfig, ROOT / "configs" / "finetune" / f"{name}.yaml", [])


def test_every_recipe_has_its_metrics():
    assert {path.stem for path in CONFIGS} == {"demo", *(f"{name}_vit_b" for name in FIGURES)}


@pytest.mark.parametrize("name", FIGURES)
def test_a_recipe_is_the_published_protocol(name):
    config, wanted = recipe(f"{name}_vit_b"), FIGURES[name]
    assert config.run.name == f"{name}_vit_b"
    per_epoch = wanted.videos // wanted.per_step
    assert config.train.batch_size == wanted.per_step * wanted.repeats
    assert config.data.repeats == wanted.repeats
    assert config.train.steps == wanted.epochs * per_epoch
    assert config.train.warmup_steps == 5 * per_epoch
    assert config.train.lr == pytest.approx(wanted.lr)
    assert config.train.schedule.final == pytest.approx(wanted.final_lr)
    assert config.train.layer_decay == wanted.layer_decay
    assert config.train.betas == [0.9, 0.999]
    assert config.classifier.drop_path == wanted.drop_path
    assert (config.views.temporal, config.views.spatial) == wanted.views
    assert config.data.augment.flip == (0.0 if name == "ssv2" else 0.5)
    assert config.data.sampling == ("segments" if name == "ssv2" else "dense")
    augment = config.data.augment
    assert (augment.mixup, augment.cutmix, augment.erasing) == (0.8, 1.0, 0.25)
    assert (augment.crop, augment.area) == ("random_resized", [0.08, 1.0])
    assert augment.rand_augment == "rand-m7-n4-mstd0.5-inc1"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_encoder_is_that_of_the_pre_training(path):
    """Whatever a recipe starts from must have been pre-trained as the recipe's model is."""
    config = load_as(FinetuneConfig, path, [])
    name = Path(config.train.initial_weights or "").name
    (pretraining,) = [
        *ROOT.glob(f"configs/recipes/{name}.yaml"),
        *ROOT.glob(f"configs/{name}.yaml"),
    ]
    pretrained = load_config(pretraining, [])
    encoder = ("patch", "tubelet", "width", "depth", "heads", "positions")
    for field in encoder:
        assert getattr(config.model, field) == getattr(pretrained.model, field), field
    assert config.grid == pretrained.grid


@pytest.mark.parametrize(
    ("override", "field", "remedy"),
    [
        ("data.augment.mixupp=1.0", "data.augment.mixupp", "did you mean data.augment.mixup?"),
        ("masking.ratio=0.5", "masking", "unknown key"),
        ("views.spatial=2", "views.spatial", "1"),
        ("data.augment.rand_augment=auto", "data.augment.rand_augment", "pattern"),
        ("data.augment.mix_clips=3", "data.augment.mix_clips", "multiple of 2"),
        ("data.augment.mix_clips=6", "data.augment.mix_clips 6", "8 clips that a worker"),
        ("train.workers=4", "data.augment.mix_clips 4", "2 clips that a worker"),
        ("train.workers=3", "train.batch_size", "use train.batch_size=9"),
        ("data.block_clips=5", "data.block_clips", "data.repeats 2"),
        ("data.size=33", "data.size", "use data.size=32"),
        ("train.layer_decay=1.5", "train.layer_decay", "less than or equal to 1"),
    ],
)
def test_misfits_are_one_line_with_the_remedy(override, field, remedy):
    with pytest.raises(ConfigError) as caught:
        load_as(FinetuneConfig, None, [*TINY_FINETUNE, override])
    assert field in str(caught.value)
    assert remedy in str(caught.value)


def test_a_dry_run_and_a_fault_take_neither_torch_nor_ray():
    script = (
        "import sys; from tats_ray.cli.train import finetune_main as f;"
        "code = [f(['--config', 'configs/finetune/demo.yaml', '--dry-run']), f(['run.name=.'])];"
        'sys.stderr.write(f\'{code} {sorted({"torch", "ray", "mlflow"} & set(sys.modules))}\')'
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stderr.splitlines()[-1] == "[0, 2] []"
    assert "initial_weights: runs/demo" in done.stdout
