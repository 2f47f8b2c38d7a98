"""HMDB51: a folder of `<class>_test_split<1, 2 or 3>.txt`."""

from __future__ import annotations

import re
from pathlib import Path

from tats_ray.data.datasets.annotation import Entry, first_present, numbered_lines
from tats_ray.errors import ManifestError

MARKS = {"train": "1", "test": "2"}  # 0 marks videos that a fold leaves out
_LINE = re.compile(r"([^/]+\.\w+)\s+([012])")


def hmdb51_entries(folder: Path, videos: Path, split: str, fold: int = 1) -> list[Entry]:
    """Videos `videos/<class>/<name>.avi`, or `.mp4` where they were re-encoded.

    Args:
        folder: holds one file per class and fold; the class is in the file's name.
        split: one of `MARKS`.
        fold: which of the three official divisions into training and test videos.

    Raises:
        ManifestError: names file and line, or the folder holds no files of that fold.
    """
    ending = f"_test_split{fold}.txt"
    files = sorted(path for path in folder.glob("*.txt") if path.name.endswith(ending))
    if not files:
        raise ManifestError(f"{folder}: holds no <class>{ending}; give the folder of split files")
    entries = []
    for file in files:
        entries += _class_entries(file, videos / file.name.removesuffix(ending), MARKS[split])
    if not entries:
        raise ManifestError(f"{folder}: fold {fold} marks no video as {split} ({MARKS[split]})")
    return entries


def _class_entries(file: Path, videos: Path, mark: str) -> list[Entry]:
    entries = []
    for origin, line in numbered_lines(file):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ManifestError(f"{origin}: '{line}' must be a video and 0, 1 or 2")
        if match[2] == mark:
            path = videos / match[1]
            entries.append(
                Entry(first_present(path, path.with_suffix(".mp4")), videos.name, origin)
            )
    return entries
