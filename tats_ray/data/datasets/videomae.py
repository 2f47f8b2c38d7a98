"""The list files of VideoMAE and its successors: a path and a whole number per line."""

from __future__ import annotations

import re
from pathlib import Path

from tats_ray.data.datasets.annotation import numbered_lines
from tats_ray.data.prepare import SUFFIXES, Entry
from tats_ray.errors import ManifestError

_LINE = re.compile(r'("?)(\S.*?)\1\s*[\s,]\s*([0-9]+)')


def videomae_entries(file: Path, videos: Path) -> list[Entry]:
    """Videos by their paths, relative to `videos` unless absolute; the class is the number.

    Space, tab or comma stands before the last field, which is the number, so that paths may hold
    spaces and commas. A path may stand in double quotes.

    Raises:
        ManifestError: names file and line.
    """
    entries = []
    for origin, line in numbered_lines(file):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ManifestError(f"{origin}: '{line}' must be a path and a whole number")
        path = Path(match[2])
        if path.suffix.lower() not in SUFFIXES:
            raise ManifestError(f"{origin}: '{path}' does not look like a video file")
        entries.append(Entry(videos / path, str(int(match[3])), origin))
    return entries
