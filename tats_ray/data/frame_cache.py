"""Decoded frames of whole videos on disk, so that a set is decoded once for all epochs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tats_ray.errors import StorageError
from tats_ray.storage import replacing

Shape = tuple[int, int, int, int]  # frames, height, width, colours


def cache_file(folder: Path, video: str, version: tuple[int, int], shape: Shape) -> Path:
    """Where the frames of a video are.

    Args:
        version: size and time of change of the video's file; another one has a file of its own.
    """
    text = "\n".join(map(str, (video, *version, *shape)))
    return folder / f"{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:32]}.npy"


def cached_frames(
    file: Path, shape: Shape, decode: Callable[[], Iterable[np.ndarray]]
) -> np.ndarray:
    """All frames of a video, uint8 [F, H, W, 3], mapped from disk: what is not looked at is not
    read.

    Args:
        decode: gives them in order, some at a time; is called where the file is not there.

    Raises:
        StorageError: the disk is full or read-only, or the file is not what was written.
    """
    if not file.exists():
        _write(file, shape, decode())
    try:
        frames = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StorageError(f"{file}: cannot be read ({error}); remove it") from None
    if frames.shape != shape or frames.dtype != np.uint8:
        raise StorageError(f"{file}: is not a file of decoded frames; remove it")
    return frames


class _UndecodedError(Exception):
    """Around a fault of the video, which is none of the disk that frames are written to."""


def _write(file: Path, shape: Shape, parts: Iterable[np.ndarray]) -> None:
    """Not through a mapping of the file: a full disk would end the process."""
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    written = 0
    try:
        with replacing(file) as aside, aside.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, form)
            for part in _decoded(parts):
                out.write(np.ascontiguousarray(part).data)
                written += len(part)
            assert written == shape[0], f"{written} of {shape[0]} frames were decoded"
    except _UndecodedError as fault:
        raise fault.__cause__ or fault from None


def _decoded(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    try:
        yield from parts
    except Exception as error:
        raise _UndecodedError from error
