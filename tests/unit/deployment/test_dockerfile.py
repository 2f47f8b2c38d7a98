"""The image: pinned, small, not root, and made of files that exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "configs" / "cluster" / "Dockerfile").read_text()
IGNORE = [
    line
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


class Step(NamedTuple):
    name: str
    value: str


def _steps(text: str) -> list[Step]:
    """Instructions, with continued lines joined as the builder joins them."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines() if line]


STEPS = _steps(TEXT)
STAGES = [number for number, step in enumerate(STEPS) if step.name == "FROM"]
FINAL = STEPS[STAGES[-1] :]


def _values(name: str, steps: list[Step] = STEPS) -> list[str]:
    return [step.value for step in steps if step.name == name]


def _sources(steps: list[Step] = STEPS) -> list[str]:
    """What is copied from the project."""
    copies = [value.split() for value in _values("COPY", steps)]
    return [name for words in copies if not words[0].startswith("--from=") for name in words[:-1]]


def test_only_known_instructions_stand_in_it():
    known = {"FROM", "ARG", "ENV", "WORKDIR", "RUN", "COPY", "USER", "CMD"}
    assert {step.name for step in STEPS} <= known
    assert STEPS[0].name == "FROM"


def test_the_bases_are_pinned_and_of_a_python_that_the_project_takes():
    bases = {value.split()[0] for value in _values("FROM")}
    assert len(bases) == 1
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim-\w+", bases.pop())
    least = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["requires-python"])
    assert version is not None
    assert tuple(map(int, version.groups())) >= tuple(map(int, least.groups()))


def test_the_last_user_is_a_number_and_not_root():
    """Kubernetes can check a number alone; it has to be the user that was made."""
    (user,) = _values("USER", FINAL)
    uid, gid = map(int, user.split(":"))
    assert uid > 0 < gid
    assert f"useradd --uid {uid} " in TEXT
    assert [step.name for step in FINAL].index("USER") > max(
        number for number, step in enumerate(FINAL) if step.name in {"RUN", "COPY"}
    )


def test_no_cache_and_no_tool_of_the_build_is_left():
    for run in _values("RUN"):
        assert "pip install" not in run or "PIP_NO_CACHE_DIR=1" in " ".join(_values("ENV"))
        if "apt-get" in run:
            assert "--no-install-recommends" in run
            assert "rm -rf /var/lib/apt/lists/*" in run
    assert not any("pip install" in run for run in _values("RUN", FINAL))


def test_every_copied_file_exists_and_gets_past_the_ignore_file():
    assert IGNORE[0] == "*"
    allowed = {line[1:] for line in IGNORE if line.startswith("!")}
    for source in _sources():
        assert (ROOT / source).exists()
    assert set(_sources()) == allowed, "nothing else is sent to the builder"


def test_every_package_is_pinned_by_the_constraints():
    for run in _values("RUN"):
        for command in re.findall(r"pip install ([^;&]*)", run):
            files = re.findall(r"-[cr] (\S+)", command)
            assert files
            assert all(file in _sources() or f"> {file}" in run for file in files)


def test_what_the_project_file_names_is_there_when_it_is_installed():
    first = STEPS[: STAGES[-1]]
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"} <= set(_sources(first))


@pytest.mark.parametrize("run", _values("RUN"), ids=lambda run: run.split()[0])
def test_every_step_is_shell(run):
    subprocess.run(["sh", "-n", "-c", run], check=True)


def _choose(variant: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the step that chooses PyTorch, with pip's command line printed in place of run."""
    (step,) = (run for run in _values("RUN") if "$VARIANT" in run)
    (folder / "constraints.txt").write_text((ROOT / "constraints.txt").read_text())
    return subprocess.run(
        ["sh", "-c", step.replace("/opt/venv/bin/pip", "echo")],
        cwd=folder, env={"VARIANT": variant, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_variants_differ_in_where_pytorch_comes_from(tmp_path):
    assert _choose("cuda", tmp_path).stdout == ""
    assert not (tmp_path / "torch.txt").exists()
    chosen = _choose("cpu", tmp_path)
    assert chosen.stdout.startswith("install --no-deps --index-url https://")
    wanted = (tmp_path / "torch.txt").read_text().split()
    assert [line.partition("==")[0] for line in wanted] == ["torch", "torchvision"]


def test_another_variant_ends_the_build(tmp_path):
    chosen = _choose("gpu", tmp_path)
    assert chosen.returncode == 1
    assert "VARIANT must be cuda or cpu, not 'gpu'" in chosen.stderr


def test_the_command_is_a_job_that_was_copied():
    (command,) = _values("CMD", FINAL)
    job = command.strip("[]").split(", ")[1].strip('"')
    assert (ROOT / job).is_file()
    assert job.partition("/")[0] in _sources(FINAL)
