"""Which frames and which videos make up the stream of clips; pure functions of seed and place.

What gives the frames of a clip takes the video's number of frames, at least 1, and a uniform number
in [0, 1) that places the clip; it returns int64 [frames], ascending.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from tats_ray.data.randomness import Stream, uniform_rows


def frame_indices(total: int, frames: int, stride: int, start: float) -> np.ndarray:
    """Frames of one clip: `frames` of them, `stride` apart, from a random start.

    A video shorter than the clip is read from its first frame, and its last frame is held.
    """
    span = (frames - 1) * stride + 1
    first = int(start * (total - span + 1)) if total >= span else 0
    return np.minimum(first + np.arange(frames, dtype=np.int64) * stride, total - 1)


def window_indices(total: int, frames: int, stride: int, start: float) -> np.ndarray:
    """Frames of one clip, spread evenly over a random window of `frames * stride` frames.

    VideoMAE fine-tunes so on Kinetics and UCF101 (`VideoClsDataset` of its code): the 16 frames of
    a window of 64 span 63, with three gaps of 5. A video that is no longer than the window is
    read from its first frame to its last, which is then held.
    """
    window = frames * stride
    length = min(total, window)
    first = int(start * (total - length))
    read = frames if total > window else total // stride
    held = np.full(frames - read, total)
    places = np.concatenate([np.linspace(first, first + length, read), held])
    return np.minimum(places, first + length - 1).astype(np.int64)


def segment_indices(total: int, frames: int, place: float | np.ndarray) -> np.ndarray:
    """The frame at a place within each of `frames` equal segments of the video (TSN).

    Args:
        place: in [0, 1), of all segments or of each; k / K for the k-th of K interleaved clips.
    """
    indices = ((np.arange(frames) + place) * (total / frames)).astype(np.int64)
    return np.minimum(indices, total - 1)


def jittered_segment_indices(total: int, frames: int, start: float) -> np.ndarray:
    """A random frame of each of `frames` equal segments of the video (TSN); `start` seeds it."""
    places = np.random.default_rng(int(start * 2**53)).random(frames)
    return segment_indices(total, frames, places)


class Window(NamedTuple):
    """One of the clips that together show a whole video.

    Attributes:
        start: places it, as of `frame_indices`.
        shown: those of the clip's frames that no window before it has.
        numbers: their numbers in the video.
    """

    start: float
    shown: range
    numbers: range


def successive_windows(total: int, frames: int, stride: int) -> list[Window]:
    """Windows of `frames` frames that show frames 0, stride, 2 stride ... of a video once each.

    The last window is moved back so that the video fills it; a video that is shorter than one
    window is a single one.
    """
    span = (frames - 1) * stride + 1
    wanted = -(-total // stride)
    windows = []
    for done in range(0, wanted, frames):
        first = max(0, min(done, wanted - frames))
        start = (first * stride + 0.5) / (total - span + 1) if total >= span else 0.0
        shown = range(done - first, min(frames, wanted - first))
        numbers = range(done * stride, (first + shown.stop) * stride, stride)
        windows.append(Window(start, shown, numbers))
    return windows


def manifest_rows(
    stream_indices: np.ndarray, videos: int, seed: int, repeats: int = 1
) -> np.ndarray:
    """Rows of the endless stream of clips: every epoch is the manifest in another seeded order.

    Args:
        stream_indices: int64 [B], ascending.
        videos: rows of the manifest.
        repeats: consecutive clips of one video, so that one decoding serves them all.

    Returns:
        int64 [B].
    """
    places = stream_indices // repeats
    epochs = range(int(places[0]) // videos, int(places[-1]) // videos + 1)
    parts = [
        epoch_order(videos, seed, epoch)[places[places // videos == epoch] % videos]
        for epoch in epochs
    ]
    return np.concatenate(parts)


@functools.lru_cache(maxsize=2)  # for millions of videos it takes as long as decoding a clip
def epoch_order(videos: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the manifest's rows in one epoch, int64 [videos], read-only."""
    order = np.random.default_rng([seed, epoch]).permutation(videos)
    order.flags.writeable = False
    return order


def temporal_starts(seed: int, stream_indices: np.ndarray) -> np.ndarray:
    """Uniform starts, float64 [B], of the clips at consecutive places of the stream, int64 [B]."""
    first = int(stream_indices[0])
    return uniform_rows(seed, Stream.TEMPORAL, first, len(stream_indices), 1)[:, 0]
