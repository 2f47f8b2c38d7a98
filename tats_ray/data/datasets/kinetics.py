"""Kinetics-400, -600 and -700: `train.csv`, `val.csv` (or `validate.csv`) and `test.csv`."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from tats_ray.data.datasets.annotation import (
    Entry,
    csv_fields,
    named_fields,
    numbered_lines,
    plain_name,
)
from tats_ray.errors import ManifestError

HEADER = "label,youtube_id,time_start,time_end,split"
# DeepMind writes `validate`, the copies at CVDF write `val`.
SPLITS = {
    "train": frozenset({"train"}),
    "validation": frozenset({"val", "validate", "validation"}),
    "test": frozenset({"test"}),
}


def kinetics_entries(file: Path, videos: Path, split: str | None = None) -> list[Entry]:
    """Videos `<youtube_id>_<start>_<end>.mp4` with six digits each.

    They lie in `videos`, or in its sub-folder of the class, with spaces or underscores. Columns are
    found by their names; test files without `label` give videos without a class.

    Args:
        split: one of `SPLITS`: only the rows of that split.

    Raises:
        ManifestError: names file and line, or there is no row of that split.
    """
    lines = numbered_lines(file)
    columns = _columns(*next(lines), split)
    folders = _Folders(videos)
    chosen = []
    for origin, line in lines:
        row = _row(origin, line, columns)
        if split is None or row["split"] in SPLITS[split]:
            label = row.get("label")
            start, end = int(row["time_start"]), int(row["time_end"])
            name = f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4"
            chosen.append(Entry(folders.find(name, label), label, origin))
    if not chosen:
        wanted = "no rows" if split is None else f"no rows of the split '{split}'"
        raise ManifestError(f"{file}: has {wanted}; give the csv that has them")
    return chosen


def _columns(origin: str, header: str, split: str | None) -> list[str]:
    columns = csv_fields(origin, header)
    needed = ["youtube_id", "time_start", "time_end", *([] if split is None else ["split"])]
    for name in needed:
        if name not in columns:
            raise ManifestError(f"{origin}: column '{name}' is missing; begin with {HEADER}")
    return columns


def _row(origin: str, line: str, columns: list[str]) -> dict[str, str]:
    row = named_fields(origin, line, columns)
    for name in ("time_start", "time_end"):
        if not row[name].isdecimal():
            raise ManifestError(f"{origin}: {name} '{row[name]}' must be whole seconds")
    for name in ("youtube_id", "label"):
        if row.get(name) == "":
            raise ManifestError(f"{origin}: {name} is empty; fill it in or delete the line")
        if name in row:
            plain_name(origin, name, row[name])
    return row


class _Folders:
    """Where videos may lie. Each folder is listed once: a million files asked for one by one take
    seconds, and minutes on network storage."""

    def __init__(self, videos: Path) -> None:
        self._videos = videos
        self._flat = _listed(videos)
        self._of_class = functools.cache(self._list)

    def find(self, name: str, label: str | None) -> Path:
        """The video's path; the one without a class where it lies nowhere, to be reported."""
        if name not in self._flat and label is not None:
            for folder, names in self._of_class(label):
                if name in names:
                    return folder / name
        return self._videos / name

    def _list(self, label: str) -> list[tuple[Path, set[str]]]:
        folders = (self._videos / text for text in (label, label.replace(" ", "_")))
        return [(folder, _listed(folder)) for folder in folders]


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - names, without a million paths
    except OSError:  # there is no such folder, as a rule
        return set()
