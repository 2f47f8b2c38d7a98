"""The two presets of TATS, and that shipped recipes hide nothing behind a default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tats_ray.config import Config, load_config
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import flatten, load_as, read_yaml
from tats_ray.config.rl import RLSettings

ROOT = Path(__file__).resolve().parents[3]
PRESETS = ROOT / "configs" / "presets"
VIT = sorted(ROOT.glob("configs/tats_vit_*.yaml"))
PRETRAINING = [*VIT, *sorted(ROOT.glob("configs/recipes/*.yaml"))]
FINETUNING = sorted(ROOT.glob("configs/finetune/*.yaml"))

# What a recipe may set otherwise: it depends on the machine, the encoder or the data set.
SIZED = {
    "masking.warmup_steps", "masking.sampler.width", "masking.sampler.heads",
    "rl.rollout_workers", "rl.learners", "rl.rollout_clips",
}  # fmt: skip
# The form of the gradient of the paper's reading (docs/pretraining.md).
PAPER = {
    "credit_level": "token", "log_prob_over": "masked", "reward": "error", "reward_sign": 1,
    "baseline": "critic", "draws_per_clip": 1, "rollout_fraction": 1.0, "objective": "ppo",
}  # fmt: skip

named = pytest.mark.parametrize("name", ["tats", "tats_paper"])


def _preset(name: str) -> Config:
    return load_config(PRESETS / f"{name}.yaml", [f"run.name={name}"])


def _sections(config: Config) -> dict[str, Any]:
    return flatten(config.model_dump(include={"masking", "rl"}))


@named
def test_a_preset_writes_masking_and_rl_out(name):
    written = flatten(read_yaml(PRESETS / f"{name}.yaml"))
    assert written.keys() == _sections(_preset(name)).keys()


def test_who_sets_nothing_follows_the_preset_that_the_study_found_best():
    assert _preset("tats").rl == RLSettings()


def test_the_papers_reading_is_ppo_with_a_value_network_and_credit_of_tokens():
    rl = _preset("tats_paper").rl.model_dump()
    assert {key: rl[key] for key in PAPER} == PAPER


@pytest.mark.parametrize(
    "path", [path for path in PRETRAINING if path.stem.startswith("tats")], ids=lambda p: p.stem
)
def test_a_recipe_of_tats_is_the_preset_in_its_name(path):
    name = "tats_paper" if path.stem.startswith("tats_paper") else "tats"
    preset, recipe = _sections(_preset(name)), _sections(load_config(path, []))
    assert {key for key in preset if recipe[key] != preset[key]} <= SIZED


@pytest.mark.parametrize("path", [*PRETRAINING, *FINETUNING], ids=lambda path: path.stem)
def test_no_setting_of_a_recipe_is_left_to_a_default(path):
    """A default that changes later would change what the recipe is."""
    kind = FinetuneConfig if path in FINETUNING else Config
    config = load_as(kind, path, [])
    sections = {"model", "masking", "train"} & set(kind.model_fields)
    if isinstance(config, Config) and config.learns_by_rollouts:
        sections |= {"rl"}
    wanted = flatten(config.model_dump(include=sections))
    assert wanted.keys() - flatten(read_yaml(path)).keys() == set()


def test_settings_stay_few():
    assert len(flatten(_preset("tats").model_dump())) <= 132
