"""Makes a manifest of videos, each of which is looked at once, and proves their frames."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.data.container import REPAIR, probe, regular_file
from tats_ray.data.datasets.annotation import Entry
from tats_ray.data.decode import DecodeRequest, PreparedVideo, decode_clips, upright
from tats_ray.data.each_video import VIDEO_SECONDS, each_video
from tats_ray.data.ground_truth import load_ground_truth
from tats_ray.data.isolated import Answer, IsolatedProcess
from tats_ray.data.manifest import ManifestRow, write_manifest
from tats_ray.data.video_index import MISSING_FRAMES, played_frames
from tats_ray.errors import ManifestError, VideoDecodeError

_STRIDES, _CLIP = (1, 4), 16
_STARTS = tuple(k / 8 for k in range(8))
CHECKED_FRAMES = len(_STRIDES) * len(_STARTS) * _CLIP  # per video
_SIDE = 32  # pixels of the compared pictures
_NEIGHBOURS = 300  # frames around the wanted one, one of which might be given for it
# Grey levels. In 28 real files decord's and PyAV's pictures of a frame were at most .38 apart, and
# at most .001 further from each other than from any other frame's.
_SAME_PICTURE, _TOLERANCE = 2.0, 0.1


@dataclass(frozen=True)
class Prepared:
    rows: list[ManifestRow]
    failures: list[VideoDecodeError]


def prepare(
    entries: list[Entry], output: Path, seconds: float | None = None, check: bool = False
) -> Prepared:
    """Looks at all videos in parallel and writes the manifest of the readable ones, in order.

    Args:
        seconds: time limit of one video, of which every packet is read and both ends are decoded.
            None: 60, and 600 where every frame is decoded.
        check: also decode every frame, and compare with what clips give (CHECKED_FRAMES of them).

    Raises:
        ManifestError: no video can be read, one is named twice, or a mask does not fit its video.
        StorageError: the manifest cannot be written.
    """
    _check_once(entries)
    limit = seconds or (VIDEO_SECONDS if check else 60.0)
    outcomes = each_video(
        lambda process, entry: _row(process, entry, limit, check), entries, "probing"
    )
    rows = [outcome for outcome in outcomes if isinstance(outcome, ManifestRow)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, VideoDecodeError)]
    if not rows:
        raise ManifestError(f"none of {len(entries)} videos can be read; the first: {failures[0]}")
    for row in rows:
        load_ground_truth(asdict(row))  # a mask that does not fit is found here
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


def _row(process: IsolatedProcess, entry: Entry, seconds: float, check: bool) -> ManifestRow:
    path = str(entry.path.absolute())
    try:
        f"{path}{entry.label}".encode()
    except UnicodeEncodeError:  # bytes of another encoding; Parquet holds UTF-8 only
        raise VideoDecodeError(path, "its name is not UTF-8 text; rename it") from None
    try:
        regular_file(path)
    except VideoDecodeError as error:
        raise VideoDecodeError(path, f"{error.reason} (named in {entry.origin})") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # there cannot be such a file
            reason = f"{error.strerror} (named in {entry.origin})"
            raise VideoDecodeError(path, reason) from None
        # The process that reads the file meets all else again.
    mask = None if entry.mask is None else str(entry.mask.absolute())
    found = process.ask(probe, path, [], seconds).content
    row = ManifestRow(path, entry.label, mask=mask, fold=entry.fold, group=entry.group, **found)
    if check:
        prepared = [row.reading, row.frames, row.bytes, row.mtime_ns]
        process.ask(_check_frames, path, prepared, seconds)
    return row


def _check_frames(path: str, *found: Any) -> Answer:
    """In the process: `found` holds the fields of a PreparedVideo.

    Raises:
        VideoDecodeError: clips hold other frames than decoding every frame in order gives.
    """
    prepared = PreparedVideo(*found)
    shown = _in_order(path)
    if not prepared.frames <= len(shown) <= prepared.frames + MISSING_FRAMES:
        raise VideoDecodeError(
            path, f"{len(shown)} frames decode in order, {prepared.frames} were promised; {REPAIR}"
        )
    for stride in _STRIDES:
        request = DecodeRequest(
            path, _CLIP, stride, list(_STARTS), _SIDE, _SIDE, "auto", prepared=prepared
        )
        clips, indices = decode_clips(request).frames, request.indices(prepared.frames)
        for picture, number in zip(_grey(clips), indices.reshape(-1).tolist(), strict=True):
            _compare(path, shown, picture, number)
    return Answer()


def _in_order(path: str) -> np.ndarray:
    """All frames, small and grey: int16 [F, pixels]."""
    from av.video.reformatter import VideoReformatter

    scaler = VideoReformatter()
    small = (upright(frame, scaler, _SIDE, _SIDE) for frame in played_frames(path))
    return np.concatenate([_grey(picture[None]) for picture in small])


def _grey(pictures: np.ndarray) -> np.ndarray:
    """uint8 [..., side, side, 3] -> int16 [N, pixels]."""
    return pictures.mean(axis=-1).reshape(-1, _SIDE * _SIDE).astype(np.int16)


def _compare(path: str, shown: np.ndarray, picture: np.ndarray, number: int) -> None:
    first = max(0, number - _NEIGHBOURS)
    distances = np.abs(shown[first : number + _NEIGHBOURS] - picture).mean(axis=1)
    if distances[number - first] <= min(distances.min() + _TOLERANCE, _SAME_PICTURE):
        return
    nearest = first + int(distances.argmin())
    given = "a damaged picture" if nearest == number else f"frame {nearest}"
    raise VideoDecodeError(path, f"a clip gives {given} for frame {number}; {REPAIR}")
