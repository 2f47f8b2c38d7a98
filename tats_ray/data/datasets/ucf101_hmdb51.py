"""UCF101's `trainlist0N.txt` and `testlist0N.txt`; HMDB51's `<class>_test_split<N>.txt` files."""

from __future__ import annotations

import re
from pathlib import Path

from tats_ray.data.datasets.annotation import Entry, first_present, matched_lines, plain_name
from tats_ray.errors import ManifestError

_UCF101_LINE = re.compile(r"([^/]+)/([^/]+\.\w+)(?:\s+([0-9]+))?")
_CLASS_LINE = re.compile(r"([0-9]+)\s+(\S.*)")


def ucf101_entries(file: Path, videos: Path, labels: Path | None = None) -> list[Entry]:
    """Videos `videos/<class>/<name>.avi`, or `.mp4` where they were re-encoded.

    The class is the folder; the number that follows in training lists is only checked.

    Args:
        labels: the official classInd.txt; every class must stand in it, with the same number.

    Raises:
        ManifestError: names file and line.
    """
    numbers = None
    if labels is not None:
        lines = matched_lines(labels, _CLASS_LINE, "a number and a class")
        numbers = {match[2]: int(match[1]) for _, match in lines}
    entries = []
    form = "<class>/<video> or <class>/<video> 7"
    for origin, match in matched_lines(file, _UCF101_LINE, form):
        label, name, number = match.groups()
        plain_name(origin, "class", label)
        if numbers is not None:
            _check(origin, label, number, numbers)
        path = videos / label / name
        entries.append(Entry(first_present(path, path.with_suffix(".mp4")), label, origin))
    return entries


def _check(origin: str, label: str, number: str | None, numbers: dict[str, int]) -> None:
    if label not in numbers:
        raise ManifestError(f"{origin}: class '{label}' is not in the list of classes; add it")
    if number is not None and int(number) != numbers[label]:
        raise ManifestError(
            f"{origin}: class '{label}' has number {number} here and {numbers[label]} in the list "
            "of classes; take both files from one download"
        )


MARKS = {"train": "1", "test": "2"}  # 0 marks videos that a fold leaves out
_HMDB51_LINE = re.compile(r"([^/]+\.\w+)\s+([012])")


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
        label = file.name.removesuffix(ending)
        for origin, match in matched_lines(file, _HMDB51_LINE, "a video and 0, 1 or 2"):
            if match[2] == MARKS[split]:
                path = videos / label / match[1]
                entries.append(Entry(first_present(path, path.with_suffix(".mp4")), label, origin))
    if not entries:
        raise ManifestError(f"{folder}: fold {fold} marks no video as {split} ({MARKS[split]})")
    return entries
