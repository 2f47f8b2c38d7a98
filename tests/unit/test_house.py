"""Sizes and words that the house keeps to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted((ROOT / "tats_ray").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TEXT = [*CODE, *sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
FORMER_NAMES = ROOT / "tats_ray" / "config" / "load.py"  # refuses them, with the new ones

# A word that has another name here -> the name.
BANNED = {
    r"rollout actors?": "rollout worker",
    r"\benv_runners?_(?:cpus|gpus)|rl\.env_runners": "rollout worker",
    r"mae_lag": "staleness",
    r"canvas": "stored frame size",
    r"beyond[_ ]copy": "copy-clipped error",
    r"look-?alikes?": "static distractor",
    r"(?<![A-Za-z])discs?(?![A-Za-z])": "disk",
    r"NumberedItem|TrainLink|\bNews\b": "work item, TrainRun, trainer events",
    r"log_policy": "old_log_probs",
    r"(?<![A-Za-z])say(?:_\w+)?\(": "log",
    r"(?<![A-Za-z])tidy(?![A-Za-z])": "clean up",
    r"undone": "lost",
    r"\bloopback_|Loopback": "file rendezvous",
    r"\w+Section\b": "settings",
}


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def test_the_iteration_fits_a_screen():
    assert len((ROOT / "tats_ray/controller/loop.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= 300
    for function in _functions(path):
        where = f"{path.name}:{function.lineno} {function.name}"
        assert function.end_lineno - function.lineno < 50, where
        assert len(function.args.args) + len(function.args.kwonlyargs) <= 8, where


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 300


def test_few_modules_are_tiny():
    assert len(CODE) <= 210
    assert sum(len(path.read_text().splitlines()) < 40 for path in CODE) <= 25


def test_classes_ask_nothing_of_their_own_attributes():
    """Who has to look whether an attribute is there was begun half-made."""
    assert [path for path in CODE if "hasattr(self" in path.read_text()] == []


@pytest.mark.parametrize("word", BANNED)
def test_one_word_per_thing(word):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in TEXT
        if path != FORMER_NAMES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(word, line)
    ]
    assert found == [], f"say {BANNED[word]}"
