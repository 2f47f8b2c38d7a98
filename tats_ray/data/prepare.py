"""Makes a manifest of videos, each of which is looked at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tats_ray.data.container import VideoInfo, probe
from tats_ray.data.datasets.annotation import Entry
from tats_ray.data.isolated import IsolatedProcess, each_video
from tats_ray.data.manifest import ManifestRow, write_manifest
from tats_ray.errors import ManifestError, VideoDecodeError


@dataclass(frozen=True)
class Prepared:
    rows: list[ManifestRow]
    failures: list[VideoDecodeError]


def prepare(entries: list[Entry], output: Path, seconds: float = 60.0) -> Prepared:
    """Probes all videos in parallel and writes the manifest of the readable ones, in order.

    Args:
        seconds: time limit of one video, of which every packet is read.

    Raises:
        ManifestError: no video can be read, or one is named twice.
        StorageError: the manifest cannot be written.
    """
    _check_once(entries)
    outcomes = each_video(lambda process, entry: _row(process, entry, seconds), entries, "probing")
    rows = [outcome for outcome in outcomes if isinstance(outcome, ManifestRow)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, VideoDecodeError)]
    if not rows:
        raise ManifestError(f"none of {len(entries)} videos can be read; the first: {failures[0]}")
    write_manifest(output, rows)
    return Prepared(rows, failures)


def _check_once(entries: list[Entry]) -> None:
    """A video that counts twice would be trained on twice, or be tested under two labels."""
    origins: dict[Path, str] = {}
    for entry in entries:
        first = origins.setdefault(entry.path, entry.origin)
        if first is not entry.origin:
            raise ManifestError(
                f"{entry.origin}: {entry.path} is already in {first}; keep one of them"
            )


def _row(process: IsolatedProcess, entry: Entry, seconds: float) -> ManifestRow:
    path = entry.path.absolute()
    try:
        f"{path}{entry.label}".encode()
        found = path.is_file()
    except UnicodeEncodeError:  # bytes of another encoding; Parquet holds UTF-8 only
        raise VideoDecodeError(str(path), "its name is not UTF-8 text; rename it") from None
    except OSError as error:  # a folder without permission, a name too long
        raise VideoDecodeError(str(path), f"{error.strerror} (named in {entry.origin})") from None
    if not found:
        raise VideoDecodeError(str(path), f"no such file (named in {entry.origin})")
    info = VideoInfo(**process.ask(probe, str(path), [], seconds).content)
    return ManifestRow(str(path), entry.label, info.frames, info.fps, info.width, info.height)
