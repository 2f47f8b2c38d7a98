"""What all annotation files have in common: numbered lines, and videos that may lie in one of
several places."""

from __future__ import annotations

from pathlib import Path

from tats_ray.errors import ManifestError


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


def numbered_lines(file: Path) -> list[tuple[str, str]]:
    """Every line that is not blank, stripped, each behind its `file:line`.

    Raises:
        ManifestError: the file cannot be read, is not UTF-8, or is empty.
    """
    lines = read_annotation(file).split("\n")  # splitlines would also break at odd characters
    return [
        (f"{file}:{number}", line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def first_present(*candidates: Path) -> Path:
    """The first of these files that exists; where none does, the first, to be reported missing."""
    return next((path for path in candidates if _is_file(path)), candidates[0])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder without permission, a name too long
        return False
