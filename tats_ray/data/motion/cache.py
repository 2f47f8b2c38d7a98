"""Motion of whole videos on disk, made once by tats-ray prepare --motion.

One .npz file per video, named by its absolute path: the per-frame displacements as float16
[F, G, G, 2] and a JSON header that says what they were made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tats_ray.data.each_video import VIDEO_SECONDS, each_video
from tats_ray.data.isolated import Answer, IsolatedProcess
from tats_ray.data.motion.pictures import picture_fields
from tats_ray.data.motion.vectors import vector_fields
from tats_ray.errors import MotionPriorError, VideoDecodeError
from tats_ray.storage import replacing

_FORMAT = 1  # raise it when the same settings give other fields


def cache_motion(
    paths: Sequence[str], source: str, grid: int, folder: str, seconds: float = VIDEO_SECONDS
) -> list[VideoDecodeError]:
    """Writes the motion of every video that has no valid cache yet, in parallel processes.

    Args:
        source: vectors | lucas_kanade | dense_flow | cotracker3.
        grid: points per side of the frame.
        seconds: time limit of one video.

    Returns:
        One error for each video whose motion cannot be had.
    """

    def cache_one(process: IsolatedProcess, path: str) -> None:
        answer = process.ask(_missing_fields, path, [folder, source, grid], seconds)
        if answer.arrays:  # written here: a process that is killed would leave half a file
            write_fields(folder, path, source, answer.arrays[0])

    outcomes = each_video(cache_one, paths, f"motion ({source})")
    return [fault for fault in outcomes if fault is not None]


def _missing_fields(path: str, folder: str, source: str, grid: int) -> Answer:
    """In the process: the motion, with width and height; nothing where its cache is valid."""
    try:
        read_fields(folder, path, source, grid)
        return Answer()
    except MotionPriorError:  # missing, stale, damaged or of other settings: made anew
        find = vector_fields if source == "vectors" else partial(picture_fields, source=source)
        return Answer(arrays=[find(path, grid=grid).astype(np.float16)])


def cache_file(folder: str, path: str) -> Path:
    """Where a video's motion lies."""
    digest = hashlib.sha256(os.fsencode(Path(path).absolute())).hexdigest()
    return Path(folder) / f"{digest[:32]}.npz"


def write_fields(folder: str, path: str, source: str, fields: np.ndarray) -> None:
    """Writes a video's motion, [F, G, G, 2], as a whole: readers never see half a file.

    Raises:
        StorageError: disk full or read-only.
    """
    header = {
        "format": _FORMAT,
        "source": source,
        "grid": fields.shape[1],
        "frames": len(fields),
        **_identity(path),
    }
    with replacing(cache_file(folder, path)) as aside:
        np.savez_compressed(
            aside,
            header=np.frombuffer(json.dumps(header).encode(), np.uint8),
            fields=fields.astype(np.float16),
        )


def read_fields(folder: str, path: str, source: str, grid: int) -> np.ndarray:
    """Displacements of a video, float32 [F, grid, grid, 2], from frame f-1 to f.

    Raises:
        MotionPriorError: there is none, it is damaged, or was made of something else.
    """
    remedy = (
        f"run tats-ray prepare with --motion {source} --motion-folder {folder} --motion-grid {grid}"
    )
    file = cache_file(folder, path)
    if not file.is_file():
        raise MotionPriorError(path, f"its motion is not in {folder}; {remedy}")
    try:
        with np.load(file, allow_pickle=False) as stored:
            header, fields = dict(json.loads(stored["header"].tobytes())), stored["fields"]
    except (OSError, TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise MotionPriorError(path, f"its motion cannot be read from {file}; {remedy}") from None
    for name, value in {"format": _FORMAT, "source": source, "grid": grid}.items():
        if header.get(name) != value:
            raise MotionPriorError(
                path, f"its motion has {name} {header.get(name)}, not {value} ({file}); {remedy}"
            )
    if any(header.get(name) != value for name, value in _identity(path).items()):
        raise MotionPriorError(path, f"has changed since its motion was made ({file}); {remedy}")
    if fields.shape != (header.get("frames"), grid, grid, 2):
        raise MotionPriorError(path, f"its motion cannot be read from {file}; {remedy}")
    if not np.isfinite(fields).all():
        raise MotionPriorError(path, f"its motion in {file} is not finite; {remedy}")
    return fields.astype(np.float32)


def _identity(path: str) -> dict[str, int]:
    """What tells that a video is still the same."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise MotionPriorError(path, f"cannot be inspected ({error.strerror})") from None
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
