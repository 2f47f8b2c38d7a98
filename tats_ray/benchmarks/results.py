"""What benchmarks measured, one JSON file per machine, and whether it became worse."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tats_ray.errors import StorageError
from tats_ray.storage import replacing

Kind = Literal["time", "memory", "other"]

# By how much a figure may grow from one measurement to the next: 15 % less speed, 5 % more memory.
_LIMITS: dict[Kind, float] = {"time": 1 / 0.85, "memory": 1.05}


@dataclass(frozen=True)
class Figure:
    """One measured number; less is better where it is a time or memory.

    Attributes:
        spread: half of the range that the middle half of the repeats spans, as a share.
    """

    value: float
    unit: str
    kind: Kind = "other"
    spread: float = 0.0

    @staticmethod
    def of(times: np.ndarray, unit: str) -> Figure:
        """The median of repeated times, with their spread."""
        median, (low, high) = float(np.median(times)), np.percentile(times, [25, 75])
        return Figure(median, unit, "time", float((high - low) / 2 / median))


def record(folder: Path, benchmark: str, figures: Mapping[str, Figure]) -> list[str]:
    """Stores the figures of a benchmark in this machine's file, in place of those before.

    Returns:
        A line for each figure that became worse than its limit.

    Raises:
        StorageError: the file is damaged, or cannot be written.
    """
    path = folder / f"{machine()}.json"
    stored = _read(path)
    worse = regressions(stored.get(benchmark, {}), figures)
    stored[benchmark] = dict(figures)
    tree = {name: {k: asdict(f) for k, f in found.items()} for name, found in stored.items()}
    with replacing(path) as aside:
        aside.write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n")
    return worse


def regressions(before: Mapping[str, Figure], now: Mapping[str, Figure]) -> list[str]:
    """A line for each figure that grew by more than its kind permits."""
    lines = []
    for name, figure in now.items():
        former = before.get(name)
        limit = _LIMITS.get(figure.kind)
        if former is None or limit is None or figure.value <= limit * former.value:
            continue
        growth = figure.value / former.value - 1
        lines.append(
            f"{name}: {figure.value:.4g} {figure.unit}, {growth:.0%} more than before "
            f"({former.value:.4g})"
        )
    return lines


def machine() -> str:
    """A file name for machines of one kind: processor, cores and GPU."""
    parts = [_processor(), f"{os.cpu_count()}-cores", *_gpu()]
    return re.sub(r"[^A-Za-z0-9]+", "-", " ".join(parts)).strip("-").lower()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _gpu() -> list[str]:
    import torch

    return [torch.cuda.get_device_name()] if torch.cuda.is_available() else []


def _read(path: Path) -> dict[str, dict[str, Figure]]:
    if not path.exists():
        return {}
    try:
        tree = json.loads(path.read_text())
        return {
            benchmark: {name: Figure(**figure) for name, figure in found.items()}
            for benchmark, found in tree.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        raise StorageError(f"{path}: is not a file of benchmark results; remove it") from None
