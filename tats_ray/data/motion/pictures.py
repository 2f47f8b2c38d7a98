"""Displacements out of consecutive pictures, by dense flow or by a point tracker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tats_ray.data.motion.fields import area_average, as_stored, grid_points
from tats_ray.data.motion.trackers import PointTracker, dense_flow, point_tracker, track_dense_flow
from tats_ray.errors import MotionPriorError

_SHORT_SIDE = 256  # pixels at which whole videos are looked at, as clips usually are


def step_between(
    tracker: PointTracker, before: np.ndarray, after: np.ndarray, grid: int
) -> np.ndarray:
    """Displacement from one frame to the next at the grid's places in the first.

    Dense flow is averaged over each cell; a point tracker follows the cell's centre.

    Args:
        before, after: uint8 [H, W, 3].

    Returns:
        float32 [grid, grid, 2] in frame widths and heights.
    """
    if tracker is track_dense_flow:
        height, width = before.shape[:2]
        return area_average(dense_flow(before, after), 1, height, width, grid)
    points = grid_points(grid)
    places = tracker(np.stack([before, after]), points)
    return (places[1] - points).reshape(grid, grid, 2)


def picture_fields(path: str, source: str, grid: int) -> np.ndarray:
    """Displacements between all consecutive frames of a video.

    Args:
        source: lucas_kanade, dense_flow or cotracker3.

    Returns:
        float32 [F, grid, grid, 2] from frame f-1 to f, in frame widths and heights; that of frame 0
        repeats that of frame 1.

    Raises:
        MotionPriorError: the video cannot be decoded, is shown rotated, or the tracker is lacking.
    """
    tracker = point_tracker(source, path)
    fields = [np.zeros((grid, grid, 2), np.float32)]
    before = None
    for picture in _pictures(path):
        if before is not None:
            fields.append(step_between(tracker, before, picture, grid))
        before = picture
    if before is None:
        raise MotionPriorError(path, "holds no video frames; leave it out of the manifest")
    fields[0] = fields[min(1, len(fields) - 1)]
    return as_stored(np.stack(fields))


def _pictures(path: str) -> Iterator[np.ndarray]:
    """Frames in decoding order, uint8 [H, W, 3]."""
    import av

    try:
        with av.open(path) as container:
            for frame in container.decode(container.streams.best("video")):
                if frame.rotation:
                    raise MotionPriorError(
                        path,
                        f"is shown rotated by {frame.rotation} degrees; re-encode it with "
                        "tats-ray prepare --reencode",
                    )
                share = min(1.0, _SHORT_SIDE / min(frame.width, frame.height))
                width, height = (
                    max(1, round(side * share)) for side in (frame.width, frame.height)
                )
                yield frame.to_ndarray(format="rgb24", width=width, height=height)
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise MotionPriorError(
            path, f"cannot be decoded ({reason}); leave it out of the manifest"
        ) from None
