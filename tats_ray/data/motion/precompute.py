"""Makes the motion cache of many videos, in parallel processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tats_ray.data.each_video import VIDEO_SECONDS, each_video
from tats_ray.data.motion.cache import read_fields, write_fields
from tats_ray.data.motion.pictures import picture_fields
from tats_ray.data.motion.vectors import vector_fields
from tats_ray.errors import MotionPriorError, VideoDecodeError


def cache_motion(
    paths: Sequence[str], source: str, grid: int, folder: str, seconds: float = VIDEO_SECONDS
) -> list[VideoDecodeError]:
    """Writes the motion of every video that has no valid cache yet.

    Args:
        source: vectors | lucas_kanade | dense_flow | cotracker3.
        grid: points per side of the frame.
        seconds: time limit of one video.

    Returns:
        One error for each video whose motion cannot be had.
    """
    job = partial(_cache_one, source, grid, folder)
    reasons = each_video(job, paths, f"motion ({source})", seconds)
    return [
        MotionPriorError(path, reason)
        for path, reason in zip(paths, reasons, strict=True)
        if reason is not None
    ]


def _cache_one(source: str, grid: int, folder: str, path: str) -> str | None:
    """Caches one video; the reason if it cannot."""
    try:
        read_fields(folder, path, source, grid)
    except MotionPriorError:
        pass  # missing, stale, damaged or of other settings: made anew
    else:
        return None
    try:
        if source == "vectors":
            motion = vector_fields(path, grid)
        else:
            motion = picture_fields(path, source, grid)
        write_fields(folder, path, source, motion)
    except VideoDecodeError as error:
        return error.reason
    return None
