"""Every package that is imported is declared in pyproject.toml, and pinned in constraints.txt."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
TORCH = next(pin for pin in PINS if pin.startswith("torch==")).removeprefix("torch==")
OWN = {"tats_ray", "tests"}


def _name(requirement: str) -> str:
    """`PyYAML>=6.0; ...` -> `pyyaml`."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _extra(name: str) -> set[str]:
    """Packages of an extra, and of those extras that it takes in."""
    packages: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][name]:
        other = re.fullmatch(r"tats-ray\[(\w+)\]", requirement)
        packages |= _extra(other[1]) if other else {_name(requirement)}
    return packages


RUNTIME = {_name(requirement) for requirement in PROJECT["dependencies"]}
MOTION, DEV = _extra("motion"), _extra("dev")


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
    [("tats_ray", RUNTIME | MOTION), ("jobs", RUNTIME), ("tests", RUNTIME | DEV)],
)
def test_imports_are_declared(folder, declared):
    distributions = packages_distributions()
    undeclared = {
        name: at
        for name, at in _imported(folder).items()
        if not declared & {_name(one) for one in distributions.get(name, [name])}
    }
    assert undeclared == {}


def test_one_file_needs_the_extra_for_motion():
    """What else imports OpenCV would fail where the extra is not installed."""
    users = [
        path.name
        for path in (ROOT / "tats_ray").rglob("*.py")
        if re.search(r"^\s*(?:import|from) cv2", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert users == ["trackers.py"]
    assert MOTION == {"opencv-python-headless"} <= DEV
    assert MOTION.isdisjoint(RUNTIME)


def test_the_search_finds_imports():
    assert {"torch", "PIL", "sklearn", "mlflow", "yaml"} <= _imported("tats_ray").keys()
    assert {"pytest", "psutil"} <= _imported("tests").keys()


def test_what_is_declared_is_pinned():
    assert (RUNTIME | DEV) - {_name(pin) for pin in PINS} == set()


def test_the_pins_prefer_builds_without_cuda_where_their_index_is_given(tmp_path):
    """`make setup TORCH=cpu` adds an index whose versions end with +cpu."""
    for version in (TORCH, f"{TORCH}+cpu"):
        name = f"torch-{version}"
        with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as wheel:
            about = f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
            wheel.writestr(f"{name}.dist-info/METADATA", about)
            wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\n")
            wheel.writestr(f"{name}.dist-info/RECORD", "")
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps",
            "--no-index", "--find-links", str(tmp_path), "-c", str(ROOT / "constraints.txt"),
            "torch>=2.11",
        ],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert f"Would install torch-{TORCH}+cpu" in done.stdout
