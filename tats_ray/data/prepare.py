"""Makes a manifest from a folder of videos or a list file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tats_ray.data.datasets.annotation import numbered_lines
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.manifest import ManifestRow, write_manifest
from tats_ray.errors import ManifestError, VideoDecodeError

SUFFIXES = frozenset(
    [
        ".mp4",
        ".mkv",
        ".avi",
        ".mov",
        ".webm",
        ".mpg",
        ".mpeg",
        ".m4v",
        ".flv",
        ".wmv",
        ".3gp",
        ".ts",
    ]
)


_LABELLED = re.compile(r"(.*\.\w+) (\S+)")


@dataclass(frozen=True, slots=True)
class Entry:
    """A video to look at; `origin` is where it is named, for messages."""

    path: Path
    label: str | None
    origin: str


@dataclass(frozen=True)
class Prepared:
    rows: list[ManifestRow]
    failures: list[VideoDecodeError]


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


def list_entries(file: Path) -> list[Entry]:
    """Videos of a list file: `path`, or path and label separated by tab, comma or space.

    A path is relative to the list file. Where a line has neither tab nor comma, the label is what
    follows the last space, so that paths may hold spaces as long as every line has a label.

    Raises:
        ManifestError: file and line.
    """
    return list(_parse_lines(file))


def prepare(entries: list[Entry], output: Path, seconds: float = 60.0) -> Prepared:
    """Probes all videos in parallel and writes the manifest of the readable ones, in order.

    Args:
        seconds: time limit of one video, of which every packet is read.

    Raises:
        ManifestError: no video can be read, or one is named twice.
        StorageError: the manifest cannot be written.
    """
    _check_once(entries)
    outcomes = _probe_all(entries, seconds)
    rows = [outcome for outcome in outcomes if isinstance(outcome, ManifestRow)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, VideoDecodeError)]
    if not rows:
        raise ManifestError(f"none of {len(entries)} videos can be read; the first: {failures[0]}")
    write_manifest(output, rows)
    return Prepared(rows, failures)


def _probe_all(entries: list[Entry], seconds: float) -> list[ManifestRow | VideoDecodeError]:
    """In processes that may hang or crash over a file without taking this one along."""
    free: SimpleQueue[DecoderProcess] = SimpleQueue()
    workers = min(os.cpu_count() or 1, len(entries))
    decoders = [DecoderProcess() for _ in range(workers)]
    for decoder in decoders:
        free.put(decoder)

    def probe(entry: Entry) -> ManifestRow | VideoDecodeError:
        decoder = free.get()
        try:
            return _probe(entry, decoder, seconds)
        finally:
            free.put(decoder)

    try:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(probe, entries))
    finally:
        for decoder in decoders:
            decoder.close()


def _check_once(entries: list[Entry]) -> None:
    """A video that counts twice would be trained on twice, or be tested under two labels."""
    origins: dict[Path, str] = {}
    for entry in entries:
        first = origins.setdefault(entry.path, entry.origin)
        if first is not entry.origin:
            raise ManifestError(
                f"{entry.origin}: {entry.path} is there already in {first}; keep one of them"
            )


def _probe(entry: Entry, decoder: DecoderProcess, seconds: float) -> ManifestRow | VideoDecodeError:
    path = entry.path.absolute()
    try:
        f"{path}{entry.label}".encode()
        if not path.is_file():
            raise VideoDecodeError(str(path), f"no such file (named in {entry.origin})")
        info = decoder.probe(str(path), seconds)
    except VideoDecodeError as error:
        return error
    except UnicodeEncodeError:  # bytes of another encoding; Parquet holds UTF-8 only
        return VideoDecodeError(str(path), "its name is not UTF-8 text; rename it")
    except OSError as error:  # a folder without permission, a name too long
        return VideoDecodeError(str(path), f"{error.strerror} (named in {entry.origin})")
    return ManifestRow(str(path), entry.label, info.frames, info.fps, info.width, info.height)


def _parse_lines(file: Path) -> Iterator[Entry]:
    folder = str(file.parent)
    for origin, line in numbered_lines(file):
        name, label = _split(line)
        path = Path(folder, name)
        if path.suffix.lower() not in SUFFIXES:
            raise ManifestError(f"{origin}: '{name}' does not look like a video file")
        yield Entry(path, label, origin)


def _split(line: str) -> tuple[str, str | None]:
    separator = next((mark for mark in "\t," if mark in line), None)
    if separator is not None:
        path, label = line.split(separator)[:2]
        return path.strip(), label.strip() or None
    match = _LABELLED.fullmatch(line)
    return (match[1], match[2]) if match else (line, None)
