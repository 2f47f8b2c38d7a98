"""Dependencies point one way, and the pure parts stay pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.config.masking import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tats_ray"
# Lowest first: a package may import itself and what stands before it.
ORDER = ["errors", "storage", "config", "data", "models", "masking", "rl", "training", "evaluation",
         "tracking", "actors", "controller", "benchmarks", "cli"]  # fmt: skip
# What the configuration may not wait for: it loads every masking system.
HEAVY = {"torch", "numpy", "ray", "einops", "pyarrow", "mlflow", "decord"}
# They take longer to import than PyTorch, in every process of a run.
SLOW = {"timm", "torchvision", "torch._dynamo"}


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_dependencies_point_down():
    wrong = []
    for path in _files():
        place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if place == "__init__":
            continue
        for name in _imports(path):
            parts = name.split(".")
            ours = parts[0] == "tats_ray" and len(parts) > 1
            if ours and ORDER.index(parts[1]) > ORDER.index(place):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_tracking_is_called_from_runtime_only():
    callers = {
        path.relative_to(PACKAGE).parts[0]
        for path in _files()
        if any(name.startswith("tats_ray.tracking") for name in _imports(path))
    }
    assert callers <= {"tracking", "actors", "controller", "cli"}


def test_ray_is_imported_in_actors_only():
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in _files()
        if any(name.split(".")[0] == "ray" for name in _imports(path))
    }
    assert users == {"actors"}


def test_models_are_a_library():
    """They are built from sizes: no job's configuration, no data."""
    sizes = {"tats_ray.config.geometry", "tats_ray.config.model", "tats_ray.config.train"}
    for path in (PACKAGE / "models").rglob("*.py"):
        known = {
            name for name in _imports(path) if name.startswith(("tats_ray.config", "tats_ray.data"))
        }
        assert known <= sizes, path


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("tats_ray", {"torch", "ray", "numpy", "pyarrow", "pydantic", "yaml"}),
        ("tats_ray.config", {"torch", "ray", "numpy", "pyarrow"}),
        ("tats_ray.data.decode", {"torch", "ray", "decord", "av"}),
        *[(path.partition(":")[0], HEAVY) for path in SYSTEMS.values()],
        ("examples.checkerboard", HEAVY),
        ("tats_ray.controller.in_process", {"ray", "decord", "mlflow", "gymnasium"}),
        ("tats_ray.controller.pretrain", {"ray", "decord", "mlflow", "gymnasium"} | SLOW),
        ("tats_ray.actors.ppo_algorithm", SLOW),
        ("tats_ray.actors.hub", {"torch", "decord", "av", "mlflow"}),
        ("tats_ray.actors.decode_stream", {"torch", "decord", "av", "mlflow"}),
        ("tats_ray.actors.train_worker", SLOW),
        ("tats_ray.cli.train", {"torch", "ray", "numpy", "pyarrow"}),
        ("tats_ray.controller.finetune", {"ray", "decord", "mlflow", "gymnasium"}),
    ],
)
def test_importing_does_not_pull_in(module, forbidden):
    script = f"import sys, {module}; print(sorted({forbidden!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
