"""What all annotations have in common: the videos that they name, and their numbered lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tats_ray.errors import ManifestError

# What tells a video file.
SUFFIXES = frozenset(
    {".mp4", ".mkv", ".avi", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".flv", ".wmv", ".3gp",
     ".ts"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A video to look at; `origin` is where it is named, for messages."""

    path: Path
    label: str | None
    origin: str


def read_annotation(file: Path) -> str:
    """The text of a UTF-8 file without byte order mark, its line ends as newlines.

    Raises:
        ManifestError: the file cannot be read, is not UTF-8, or is empty.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{file}: is not UTF-8 text; convert it") from None
    if not text.strip():
        raise ManifestError(f"{file}: is empty")
    return text


def numbered_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, stripped, each behind its `file:line`; there is at least one.

    Raises:
        ManifestError: the file cannot be read, is not UTF-8, or is empty.
    """
    lines = read_annotation(file).split("\n")  # splitlines would also break at odd characters
    for number, line in enumerate(lines, start=1):
        if text := line.strip():
            yield f"{file}:{number}", text


def matched_lines(
    file: Path, pattern: re.Pattern[str], form: str
) -> Iterator[tuple[str, re.Match[str]]]:
    """`numbered_lines` as a pattern takes them apart.

    Raises:
        ManifestError: as there, or a line is of another form.
    """
    for origin, line in numbered_lines(file):
        match = pattern.fullmatch(line)
        if match is None:
            raise ManifestError(f"{origin}: '{line}' must be {form}")
        yield origin, match


def plain_name(origin: str, field: str, value: str) -> str:
    """A name out of an annotation that becomes a part of a path: one file or folder, no way out.

    Raises:
        ManifestError: it would lead elsewhere.
    """
    if "/" in value or "\0" in value or value in (".", ".."):
        raise ManifestError(
            f"{origin}: {field} '{value}' points outside the folder of the videos; take the "
            "official file"
        )
    return value


def first_present(*candidates: Path) -> Path:
    """The first of these files that exists; where none does, the first, to be reported missing."""
    # Not `Path.is_file`, which raises where a name is too long.
    return next((p for p in candidates if os.path.isfile(p)), candidates[0])  # noqa: PTH113
