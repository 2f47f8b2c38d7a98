"""Configurations by name: every shipped file has one, and what has none is refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tats_ray.cli.train import pretrain_main
from tats_ray.config import load_config
from tats_ray.config.shipped import KINDS, config_path, shipped_names
from tats_ray.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def test_every_shipped_file_has_a_name_of_its_own():
    named = [config_path(name).resolve() for kind in KINDS for name in shipped_names(kind)]
    files = [path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "cluster"]
    assert sorted(named) == sorted(files)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("recipe:demo", "demo.yaml"),
        ("recipe:tats_vit_b", "tats_vit_b.yaml"),
        ("recipe:videomae_ucf101", "recipes/videomae_ucf101.yaml"),
        ("preset:tats", "presets/tats.yaml"),
        ("finetune:demo", "finetune/demo.yaml"),
        ("study:tennis", "studies/tennis.yaml"),
    ],
)
def test_names_stand_for_files(name, file):
    assert config_path(name).samefile(CONFIGS / file)


@pytest.mark.parametrize("path", ["demo.yaml", "a:b/c.yaml", "recipe:x.yaml", "./recipe:x"])
def test_a_path_stays_a_path(path):
    assert config_path(path) == Path(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "recipe:videomae_ucf10",
            "recipe:videomae_ucf10: no such recipe; did you mean recipe:videomae_ucf101, ",
        ),
        ("preset:x", "preset:x: no such preset; known: preset:tats, preset:tats_paper"),
        ("study:", "study:: no such study; known: study:motion_classes, "),
        (
            "recipes:demo",
            "recipes:demo: 'recipes' is no kind of configuration; known: recipe:NAME, ",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_are_close(name, message, capsys):
    assert pretrain_main(["--config", name, "run.name=a"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {message}")
    assert told.count("\n") == 1


def test_overrides_go_on_top_of_a_named_file():
    named = load_config("preset:tats", ["run.name=a", "masking.ratio=0.8"])
    assert named.masking.ratio == 0.8
    assert named.rl == load_config(CONFIGS / "presets" / "tats.yaml", ["run.name=a"]).rl
    with pytest.raises(ConfigError, match=r"run: is required"):
        load_config("preset:tats", [])
