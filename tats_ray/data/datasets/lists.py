"""Videos of a folder or of a list file: ours, and that of VideoMAE and its successors."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tats_ray.data.datasets.annotation import (
    SUFFIXES,
    Entry,
    matched_lines,
    named_fields,
    numbered_lines,
)
from tats_ray.errors import ManifestError

_LABELLED = re.compile(r"(.*\.\w+) (\S+)")
_NUMBERED = re.compile(r'("?)(\S.*?)\1\s*[\s,]\s*([0-9]+)')


def folder_entries(folder: Path) -> list[Entry]:
    """Every video below a folder; its first sub-folder is its class, none if it lies on top.

    Raises:
        ManifestError: there is no such folder, or it holds no videos.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ManifestError(f"{folder}: holds no videos ({', '.join(sorted(SUFFIXES))})")
    return [
        Entry(
            path, parts[0] if len(parts := path.relative_to(folder).parts) > 1 else None, str(path)
        )
        for path in files
    ]


def other_files(folder: Path) -> dict[str, int]:
    """How many files below a folder are no videos by their suffix, of each suffix."""
    others = (path for path in folder.rglob("*") if path.suffix.lower() not in SUFFIXES)
    return dict(Counter(path.suffix or "without suffix" for path in others if not path.is_dir()))


def list_entries(file: Path) -> list[Entry]:
    """Videos of a list file: `path`, or path and label separated by tab, comma or space.

    A path is relative to the list file. Where a line has neither tab nor comma, the label is what
    follows the last space, so that paths may hold spaces as long as every line has a label. Where
    the first line names columns, separated by tab or comma, those called `path`, `label`, `mask`,
    `fold` and `group` are read.

    Raises:
        ManifestError: file and line.
    """
    lines = numbered_lines(file)
    _, first = next(lines)
    for mark in "\t,":
        if "path" in (columns := [name.strip() for name in first.split(mark)]):
            entries = [_named_entry(origin, line, columns, mark, file) for origin, line in lines]
            if not entries:
                raise ManifestError(f"{file}: is empty")
            return entries
    entries = []
    for origin, line in numbered_lines(file):
        name, label = _split(line)
        entries.append(Entry(_video_path(origin, file.parent, name), label, origin))
    return entries


def _named_entry(origin: str, line: str, columns: list[str], mark: str, file: Path) -> Entry:
    row = named_fields(origin, line, columns, mark)
    label, mask, fold, group = (
        row.get(name) or None for name in ("label", "mask", "fold", "group")
    )
    path = _video_path(origin, file.parent, row["path"])
    return Entry(path, label, origin, file.parent / mask if mask else None, fold, group)


def videomae_entries(file: Path, videos: Path) -> list[Entry]:
    """Videos by their paths, relative to `videos` unless absolute; the class is the number.

    Space, tab or comma stands before the last field, which is the number, so that paths may hold
    spaces and commas. A path may stand in double quotes.

    Raises:
        ManifestError: names file and line.
    """
    return [
        Entry(_video_path(origin, videos, match[2]), str(int(match[3])), origin)
        for origin, match in matched_lines(file, _NUMBERED, "a path and a whole number")
    ]


def _video_path(origin: str, folder: Path, name: str) -> Path:
    path = Path(folder, name)
    if path.suffix.lower() not in SUFFIXES:
        raise ManifestError(f"{origin}: '{name}' does not look like a video file")
    return path


def _split(line: str) -> tuple[str, str | None]:
    separator = next((mark for mark in "\t," if mark in line), None)
    if separator is not None:
        path, label = line.split(separator)[:2]
        return path.strip(), label.strip() or None
    match = _LABELLED.fullmatch(line)
    return (match[1], match[2]) if match else (line, None)
