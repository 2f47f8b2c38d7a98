"""A wheel that is really built holds all that the commands need, outside the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

import tats_ray

ROOT = Path(__file__).resolve().parents[2]
PARTS = ["pyproject.toml", "README.md", "LICENSE", "configs", "tats_ray"]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
COMMAND = "import sys; from tats_ray.cli.commands import main; sys.exit(main())"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel's files; built from a copy, since a build leaves folders beside the source."""
    copy, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True)
        else:
            shutil.copy(source, copy)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _run(unpacked, empty, *words):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        cwd=empty, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
    )  # fmt: skip


def test_the_command_is_installed(unpacked):
    scripts = ConfigParser()
    scripts.read(next(unpacked.glob("*.dist-info")) / "entry_points.txt")
    assert dict(scripts["console_scripts"]) == {"tats-ray": "tats_ray.cli.commands:main"}


def test_the_wheel_holds_every_module_and_every_configuration_once(unpacked):
    wanted = {path.relative_to(ROOT) for path in (ROOT / "tats_ray").rglob("*.py")}
    configs = (path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml"))
    wanted |= {Path("tats_ray") / path for path in configs if path.parts[1] != "cluster"}
    found = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    assert {path for path in found if ".dist-info" not in str(path)} == wanted


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pretrain", "--config", "recipe:videomae_ucf101"], "  name: videomae_ucf101"),
        (["pretrain", "--config", "preset:tats", "run.name=a"], "  name: a"),
        (["finetune", "--config", "finetune:demo"], "  name: finetune_demo"),
        (["compare", "--config", "study:motion_classes"], "# 24 trials"),
        (["demo"], "  name: demo"),
    ],
)
def test_commands_know_their_configurations_in_an_empty_folder(unpacked, tmp_path, words, line):
    done = _run(unpacked, tmp_path, *words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert line in done.stdout.splitlines()
    assert list(tmp_path.iterdir()) == []


def test_it_is_the_wheel_that_ran(unpacked, tmp_path):
    done = _run(unpacked, tmp_path, "pretrain", "--config", "recipe:x")
    assert done.returncode == 2
    assert "no such recipe" in done.stderr
    script = "import tats_ray; print(tats_ray.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
    )  # fmt: skip
    assert told.stdout.strip() == str(unpacked / "tats_ray" / "__init__.py")


def test_the_version_is_the_same_everywhere(unpacked):
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert cited == tats_ray.__version__
    assert f"\n## {cited}\n" in changes
    assert (unpacked / f"tats_ray-{cited}.dist-info").is_dir()


def test_hooks_before_a_commit_are_those_of_make_lint():
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in local["hooks"]:
        tool = hook["entry"].partition(" --force-exclude")[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in lint.partition("\n\n")[0]
