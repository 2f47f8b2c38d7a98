"""The motion of one clip, out of the codec, out of the pictures or out of a cache.

Every source gives displacements in units of the frame's width and height at a grid of points, so
that a change of aspect or size alters nothing. Runs inside the decoder process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tats_ray.data.motion.cache import read_fields
from tats_ray.data.motion.fields import (
    clip_steps,
    follow_fields,
    slice_means,
    track_queries,
    track_slices,
    upsample_tracks,
)
from tats_ray.data.motion.pictures import step_between
from tats_ray.data.motion.trackers import point_tracker
from tats_ray.data.motion.vectors import vector_fields
from tats_ray.data.video_index import MISSING_FRAMES
from tats_ray.errors import MotionPriorError


@dataclass(frozen=True)
class MotionRequest:
    """Which motion a clip is to carry; plain values, so that it crosses to another process."""

    source: str  # vectors | lucas_kanade | dense_flow | cotracker3
    form: str  # field | tracks
    grid: int  # points per side of the frame; point (r, c) stands at ((c+.5)/grid, (r+.5)/grid)
    tubelet: int  # clip frames per time slice
    cache: str | None  # folder of per-frame fields, or None: compute now


def clips_motion(
    request: MotionRequest, path: str, frames: np.ndarray, indices: np.ndarray
) -> np.ndarray:
    """Motion of the clips of one video; what the codec or the cache holds is read once for all.

    `field` is what MGM (Fan et al. 2023) masks by: slice t is the mean displacement from one clip
    frame to the next over the slice's frames, at the place where it happens. Frame 0 has none of
    its own and takes that of frame 1. `tracks` is what TrackMAE (Vandeghen et al. 2026) predicts:
    half as many points per side as the grid has start in frame 0 and are followed over every
    `tubelet`-th frame, and the grid's points go as bilinear interpolation between them says. Slice
    t is the displacement from the t-th of these frames to the next, and the last slice repeats the
    one before.

    Args:
        frames: uint8 [R, T, H, W, 3], the whole frame at any size.
        indices: int64 [R, T], ascending; the last may repeat.

    Returns:
        float32 [R, T // tubelet, grid, grid, 2]: (dx, dy) in frame widths and heights.

    Raises:
        MotionPriorError: path, and a reason with its remedy.
    """
    if request.cache is None and request.source != "vectors":
        return np.stack([_from_pictures(request, path, clip) for clip in frames])
    if request.cache is None:
        fields = vector_fields(path, request.grid, int(indices.max()))
    else:
        fields = read_fields(request.cache, path, request.source, request.grid)
    return np.stack([_from_fields(request, path, fields, places) for places in indices])


def _from_fields(
    request: MotionRequest, path: str, fields: np.ndarray, indices: np.ndarray
) -> np.ndarray:
    fields = _hold_last(fields, path, indices)
    if request.form == "field":
        return slice_means(clip_steps(fields, indices), request.tubelet)
    positions = follow_fields(fields, indices[:: request.tubelet], track_queries(request.grid))
    return upsample_tracks(track_slices(positions), request.grid)


def _from_pictures(request: MotionRequest, path: str, frames: np.ndarray) -> np.ndarray:
    tracker = point_tracker(request.source, path)
    if request.form == "tracks":
        positions = tracker(frames[:: request.tubelet], track_queries(request.grid))
        return upsample_tracks(track_slices(positions), request.grid)
    steps = np.zeros((len(frames), request.grid, request.grid, 2), np.float32)
    for number in range(1, len(frames)):
        steps[number] = step_between(tracker, frames[number - 1], frames[number], request.grid)
    steps[0] = steps[min(1, len(steps) - 1)]
    return slice_means(steps, request.tubelet)


def _hold_last(fields: np.ndarray, path: str, indices: np.ndarray) -> np.ndarray:
    """Adds rest for the frames that the container promised and does not hold."""
    missing = int(indices[-1]) + 1 - len(fields)
    if missing <= 0:
        return fields
    stride = int(np.diff(indices).max(initial=1))
    if missing > MISSING_FRAMES * stride:
        raise MotionPriorError(
            path,
            f"motion is known for {len(fields)} frames, the clip needs frame {indices[-1]}; "
            "re-encode the video with tats-ray prepare --reencode",
        )
    return np.concatenate([fields, np.zeros((missing, *fields.shape[1:]), fields.dtype)])
