"""Writes docs/settings.md from the settings and the recipes: python -m tats_ray.config.reference"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from tats_ray.config.compare import CompareSettings
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import load_as, load_config
from tats_ray.config.masking import SYSTEMS, MaskingSettings, system_class
from tats_ray.config.probe import ProbeFile
from tats_ray.config.settings import Settings
from tats_ray.config.tree import Config

_HEAD = """# Settings

Written by `python -m tats_ray.config.reference`; do not edit by hand. Every setting stands in a
YAML file below its group, or on the command line as `group.name=value`.
"""
_PRESETS = """
Presets: `tats` is what docs/study.md found best (configs/presets/tats.yaml), `tats_paper` a
reading of the paper (configs/presets/tats_paper.yaml).
"""


def reference_page(root: Path) -> str:
    """The page.

    Args:
        root: folder that holds `configs`.
    """
    parts = [_HEAD, "## Recipes\n", *_recipes(root), _PRESETS, "## Pre-training\n"]
    parts += _groups(Config)
    for name in SYSTEMS:
        own = dict(_leaves(system_class(name).Settings))
        rows = {key: field for key, field in own.items() if key not in MaskingSettings.model_fields}
        if rows:
            parts += [f"### masking, system {name}\n", _table(rows)]
    parts += ["## Fine-tuning\n", "Other groups and settings are those of pre-training.\n"]
    parts += _groups(FinetuneConfig, beside=Config)
    parts += ["## Probe\n", *_groups(ProbeFile)]
    parts += ["## Comparison\n", "`base` and the sections that it changes: docs/comparing.md.\n"]
    parts += ["### compare\n", _table(dict(_leaves(CompareSettings)))]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _recipes(root: Path) -> Iterator[str]:
    """What the recipes are, as they load."""
    head = "| file | system | ratio | clips per step | steps | peak rate | stride | preset |"
    lines = []
    for path in [*root.glob("configs/tats_vit_*.yaml"), *root.glob("configs/recipes/*.yaml")]:
        config = load_config(path, [])
        tats = "tats_paper" if path.stem.startswith("tats_paper") else "tats"
        lines.append(
            f"| `{path.relative_to(root)}` | {config.masking.system} | {config.masking.ratio:g} | "
            f"{config.train.batch_size} | {config.train.steps:,} | {config.train.lr:.4g} | "
            f"{config.data.stride} | {tats if config.learns_by_rollouts else 'none'} |"
        )
    for path in root.glob("configs/finetune/*.yaml"):
        tuned = load_as(FinetuneConfig, path, [])
        lines.append(
            f"| `{path.relative_to(root)}` | fine-tuning | | {tuned.train.batch_size} | "
            f"{tuned.train.steps:,} | {tuned.train.lr:.4g} | {tuned.data.stride} | none |"
        )
    yield "\n".join([head, "|---|---|---|---|---|---|---|---|", *sorted(lines)])


def _groups(kind: type[Settings], beside: type[Settings] | None = None) -> Iterator[str]:
    """Tables of the groups; with `beside` only of settings that are not the same there."""
    for name, field in kind.model_fields.items():
        if not _is_settings(field.annotation):
            continue
        rows = dict(_leaves(field.annotation))
        other = beside.model_fields.get(name) if beside else None
        known = dict(_leaves(other.annotation)) if other else {}
        new = {key: row for key, row in rows.items() if _differs(row, known.get(key))}
        if new:
            yield f"### {name}\n"
            yield _table(new)


def _leaves(kind: Any, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in kind.model_fields.items():
        if _is_settings(field.annotation):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _differs(field: FieldInfo, other: FieldInfo | None) -> bool:
    return other is None or (field.default, field.description) != (
        other.default, other.description,
    )  # fmt: skip


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = ["| name | type | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        default = "required" if field.is_required() else _value(field.default)
        kind = _kind(field.annotation).replace("|", "\\|")
        text = " ".join((field.description or "").split()).rstrip(".").replace("|", "\\|")
        rows.append(f"| `{name}` | {kind} | {default} | {text} |")
    return "\n".join(rows)


def _value(value: Any) -> str:
    return "" if value is None else f"`{str(value).lower() if value in (True, False) else value}`"


def _kind(annotation: Any) -> str:
    """A type as users write values of it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (UnionType, Union):
        return " or ".join(_kind(part) for part in parts if part is not NoneType)
    if origin is list:
        return f"list of {_kind(parts[0])}"
    plain = {int: "integer", float: "number", bool: "`true`, `false`", str: "text"}
    return plain.get(annotation, "mapping")


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    (folder / "docs" / "settings.md").write_text(reference_page(folder), encoding="utf-8")
