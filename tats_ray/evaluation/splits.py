"""Which videos are trained on and which are tested on; no video and no group may be both."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tats_ray.errors import LeakError, ManifestError


class Place(NamedTuple):
    """Where a video belongs."""

    fold: str
    group: str  # videos of one group, such as cuts of one recording, stay together


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows to test on, int64, ascending."""

    name: str
    train: np.ndarray
    test: np.ndarray


def read_folds(file: Path) -> dict[str, Place]:
    """Path -> fold and group, out of a CSV or Parquet file with columns path, fold and group.

    Relative paths are relative to the file. Without groups, each fold is one group.

    Raises:
        ManifestError: names the file and the column or path.
    """
    table = _read_table(file)
    for name in ("path", "fold"):
        if name not in table.column_names:
            raise ManifestError(f"{file}: column '{name}' is missing; has {table.column_names}")
    grouped = "group" in table.column_names and table["group"].null_count < table.num_rows
    group = "group" if grouped else "fold"
    columns = [
        [str(value) for value in table[name].to_pylist()] for name in ("path", "fold", group)
    ]
    places: dict[str, Place] = {}
    for path, *place in zip(*columns, strict=True):
        absolute = str((file.parent / path).absolute())
        if places.setdefault(absolute, Place(*place)) != Place(*place):
            raise ManifestError(f"{file}: '{path}' appears twice, with different folds or groups")
    return places


def places_of(paths: Sequence[str], folds: dict[str, Place], file: Path) -> list[Place]:
    """The places of a manifest's videos.

    Raises:
        ManifestError: names the first video that has none.
    """
    for path in paths:
        if path not in folds:
            raise ManifestError(f"{file}: has no row for {path}")
    return [folds[path] for path in paths]


def fold_splits(places: Sequence[Place]) -> list[Split]:
    """Every fold is tested on once, and the others are trained on.

    Raises:
        LeakError: a group lies in two folds.
        ManifestError: there is one fold only.
    """
    home: dict[str, str] = {}
    for place in places:
        if home.setdefault(place.group, place.fold) != place.fold:
            raise LeakError(
                f"group '{place.group}' is in fold '{home[place.group]}' and in fold "
                f"'{place.fold}': it would be trained on and tested on"
            )
    folds = np.array([place.fold for place in places])
    names = sorted(set(folds.tolist()))
    if len(names) < 2:
        raise ManifestError(f"probe.folds: all videos are in fold '{names[0]}'; needs at least 2")
    return [
        Split(name, np.flatnonzero(folds != name), np.flatnonzero(folds == name)) for name in names
    ]


def held_out_split(
    train: Sequence[str],
    test: Sequence[str],
    train_groups: Sequence[str],
    test_groups: Sequence[str],
) -> Split:
    """Tests on the rows that follow those of the training manifest.

    Args:
        train, test: paths of both manifests.

    Raises:
        LeakError: a video or group is in both.
    """
    for kind, known, asked in (("video", train, test), ("group", train_groups, test_groups)):
        for name in sorted(set(known) & set(asked)):
            raise LeakError(f"{kind} '{name}' is in probe.train and in probe.test")
    return Split("test", np.arange(len(train)), len(train) + np.arange(len(test)))


def inner_parts(labels: np.ndarray, groups: Sequence[str], parts: int, seed: int) -> np.ndarray:
    """Parts with about the same share of each class, for a cross-validation; groups stay whole.

    Args:
        parts: as many, or as many as there are groups.

    Returns:
        int64 [n], the part of each row.

    Raises:
        ManifestError: there is one group only.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    parts = min(parts, len(set(groups)))
    if parts < 2:
        raise ManifestError(
            "a single group of videos cannot be divided to choose probe.l2: add a column group to "
            "probe.folds, or give a single value"
        )
    # scikit-learn stratifies only where some class has a video for every part.
    method = StratifiedGroupKFold if np.bincount(labels).max() >= parts else GroupKFold
    part_of = np.empty(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare classes are absent from some parts
        folds = method(parts, shuffle=True, random_state=seed).split(labels, labels, groups)
        for part, (_, rows) in enumerate(folds):
            part_of[rows] = part
    return part_of


def _read_table(file: Path) -> pa.Table:
    if not file.is_file():
        raise ManifestError(f"{file}: no such file; check probe.folds")
    try:
        if file.suffix == ".parquet":
            return pq.read_table(file)
        return pa.csv.read_csv(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from None
