"""The settings of weights that no run here has left, as far as they are known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tats_ray.config.huggingface import is_huggingface, read_huggingface
from tats_ray.config.load import read_yaml

WEIGHTS = "model.safetensors"  # of an export, and of transformers


def is_foreign(source: Path) -> bool:
    """Whether weights are an official file, a folder of transformers, or an export of ours; else
    they are a run or one of its checkpoints."""
    return source.is_file() or (source / WEIGHTS).is_file() or is_huggingface(source)


def foreign_settings(source: Path, sizes: dict[str, Any]) -> dict[str, Any]:
    """Settings for foreign weights: those that lie beside an export, what a folder of transformers
    tells, or the given sizes; the rest is the default. The run has the name of file or folder.

    Args:
        sizes: settings below `model` of an official file.

    Raises:
        CheckpointError: as `read_huggingface`.
        ConfigError: config.yaml is damaged.
    """
    tree: dict[str, Any] = {"model": sizes}
    if (source / "config.yaml").is_file():
        tree = read_yaml(source / "config.yaml")
    elif is_huggingface(source):
        described = read_huggingface(source)
        data = {"frames": described.frames, "size": described.size}
        tree = {"model": described.model, "data": data}
    name = source.stem if source.is_file() else source.name
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-") or "weights"
    return tree | {"run": {"name": name}}
