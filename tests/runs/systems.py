"""One small configuration per system, for the tests that run all of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tats_ray.data.manifest import ManifestRow, write_manifest

SYSTEMS = {
    "tats": ["masking.warmup_steps=2", "rl.rollout_fraction=0.5"],
    "adamae": ["masking.heads=2"],
    "mgm": [],
    "trackmae": ["model.motion_target.weight=1"],
    "tube": [],
    "random": ["data.repeats=2", "model.target.normalize=joint", "model.target.frames=4"],  # MAE-ST
    "frame": [],
    "difference": ["masking.compensate=true"],
    "codec": [],
}


def overrides(system: str) -> list[str]:
    """Settings of a tiny run of the system."""
    return [f"masking.system={system}", *SYSTEMS[system]]


def quick_only(*quick: str) -> list[Any]:
    """All systems as parameters, slow ones but for those named."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in quick else slow) for name in SYSTEMS]


def tennis_manifest(shared_data: Path, folder: Path) -> Path:
    """A dozen real clips."""
    tennis = shared_data / "tennis"
    with (tennis / "manifest.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))[::20]
    rows = [
        ManifestRow(str(tennis / row["path"]), row["label"], int(row["frames"]),
                    float(row["fps"]), int(row["width"]), int(row["height"]))
        for row in listed
    ]  # fmt: skip
    write_manifest(folder / "tennis.parquet", rows)
    return folder / "tennis.parquet"


TENNIS = ["data.stride=2", "data.stored_height=48", "data.stored_width=96",
          "data.augment.crop=multi_scale"]  # fmt: skip
