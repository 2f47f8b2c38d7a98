"""Classes of a manifest, and the class of each clip of the stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tats_ray.data.sampling import ClipOrder
from tats_ray.errors import ManifestError


def classes_of(path: str | Path, manifest: pa.Table) -> list[str]:
    """Sorted class names.

    Raises:
        ManifestError: a video has no label, or there is one class only.
    """
    labels = manifest["label"].to_pylist()
    if None in labels:
        video = manifest["path"][labels.index(None)].as_py()
        raise ManifestError(
            f"{path}: {video} has no label; prepare it from class folders or `path label` lines"
        )
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise ManifestError(f"{path}: has the single class '{classes[0]}'; at least 2 are needed")
    return classes


def class_index(path: str | Path, manifest: pa.Table, classes: list[str]) -> np.ndarray:
    """Class number of every row, int64 [videos].

    Raises:
        ManifestError: a video has no label, or one that is no class.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    labels = manifest["label"].to_pylist()
    for row, label in enumerate(labels):
        if label not in numbers:
            what = "no label" if label is None else f"the label '{label}'"
            raise ManifestError(
                f"{path}: {manifest['path'][row].as_py()} has {what}, which is none of the "
                f"{len(classes)} classes of the training set"
            )
    return np.array([numbers[label] for label in labels], dtype=np.int64)


class ClipLabels:
    """Tells a clip's class by its place in the shuffled stream."""

    def __init__(self, rows: np.ndarray, seed: int, repeats: int) -> None:
        """Args: rows: int64 [videos], class number of every manifest row."""
        self._rows = rows
        self._order = ClipOrder(len(rows), seed, repeats)

    def at(self, stream_indices: np.ndarray) -> np.ndarray:
        """Ascending stream_indices int64 [B] -> class numbers int64 [B]."""
        return self._rows[self._order.rows_at(stream_indices)]
