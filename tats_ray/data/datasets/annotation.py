"""What all annotations have in common: the videos that they name, and their numbered lines."""

from __future__ import annotations

import csv
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
    """A video to look at, and what its list says of it.

    Attributes:
        origin: where it is named, for messages.
        mask: file of its moving objects.
        fold, group: where it belongs in a probe.
    """

    path: Path
    label: str | None
    origin: str
    mask: Path | None = None
    fold: str | None = None
    group: str | None = None


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


def csv_fields(origin: str, line: str, mark: str = ",") -> list[str]:
    """The fields of a line, stripped; one with a separator in it stands in double quotes.

    Raises:
        ManifestError: the quotes do not fit.
    """
    if '"' not in line and "\r" not in line:  # what csv would make of it, in less time
        return [field.strip() for field in line.split(mark)]
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=mark, strict=True))]
    except csv.Error as error:
        raise ManifestError(f"{origin}: {error}; fix the double quotes") from None


def named_fields(origin: str, line: str, columns: list[str], mark: str = ",") -> dict[str, str]:
    """The fields of a line below a line of column names.

    Raises:
        ManifestError: there are more or fewer than columns.
    """
    fields = csv_fields(origin, line, mark)
    if len(fields) != len(columns):
        raise ManifestError(
            f"{origin}: {len(fields)} fields where the first line names {len(columns)}; "
            "put a label with a comma in double quotes"
        )
    return dict(zip(columns, fields, strict=True))


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
