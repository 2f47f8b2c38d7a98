"""Every package that is imported is declared in pyproject.toml, and pinned in constraints.txt."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"tats_ray", "tests"}


def _name(requirement: str) -> str:
    """`PyYAML>=6.0; ...` -> `pyyaml`."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


RUNTIME = {_name(requirement) for requirement in PROJECT["dependencies"]}
DEV = {_name(requirement) for requirement in PROJECT["optional-dependencies"]["dev"]}


def _imported(folder: str) -> dict[str, str]:
    """Package outside the standard library -> a file that imports it."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            for name in names:
                found.setdefault(name.partition(".")[0], str(path.relative_to(ROOT)))
    return {name: at for name, at in found.items() if name not in sys.stdlib_module_names | OWN}


@pytest.mark.parametrize(
    ("folder", "declared"),
    [("tats_ray", RUNTIME), ("jobs", RUNTIME), ("tests", RUNTIME | DEV)],
)
def test_imports_are_declared(folder, declared):
    distributions = packages_distributions()
    undeclared = {
        name: at
        for name, at in _imported(folder).items()
        if not declared & {_name(one) for one in distributions.get(name, [name])}
    }
    assert undeclared == {}


def test_the_search_finds_imports():
    assert {"torch", "PIL", "sklearn", "mlflow", "yaml"} <= _imported("tats_ray").keys()
    assert {"pytest", "psutil"} <= _imported("tests").keys()


def test_what_is_declared_is_pinned():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert (RUNTIME | DEV) - {_name(pin) for pin in pins} == set()
