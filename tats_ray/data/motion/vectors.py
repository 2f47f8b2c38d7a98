"""Displacements out of the motion vectors that a codec stores (MGM, Fan et al. 2023).

FFmpeg hands them out for H.264 and the MPEG-1/2/4 family. A vector leads from a block to its place
in a reference frame, which may be several frames away; it is divided by that distance, so that a
field always holds the displacement of one video frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tats_ray.data.motion.fields import area_average, as_stored
from tats_ray.errors import MotionPriorError

CODECS = frozenset(
    {"h264", "mpeg1video", "mpeg2video", "mpeg4", "h263", "flv1"}
    | {"msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"}
)
RASTER = 8  # pixels; every block that FFmpeg reports begins and ends on a multiple of it
_REMEDY = "re-encode it with tats-ray prepare --reencode, or set data.motion.source=dense_flow"
# The pictures are not looked at: neither their residuals nor their deblocking is needed.
_OPTIONS = {
    "flags2": "+export_mvs",
    "threads": "1",
    "skip_idct": "all",
    "skip_loop_filter": "all",
}


class CodedFrame(NamedTuple):
    bidirectional: bool  # a B-frame
    stamp: int | None  # time stamp
    vectors: bool  # whether it has usable ones


class _CodedVideo(NamedTuple):
    frames: list[CodedFrame]
    painted: list[np.ndarray]  # float32 [2, G, G, 2] of each frame, as `paint_vectors`
    order: list[int | None]  # time stamps of packets in coded order


def vector_fields(path: str, grid: int, last: int | None = None) -> np.ndarray:
    """Displacement fields of a video's frames, in the order in which decoding gives them.

    Frames without vectors (I-frames) repeat the field before them, the first ones the first field
    there is. Blocks without a vector, inside a frame with vectors, rest.

    Args:
        last: last frame that is needed; None: all.

    Returns:
        float32 [F, grid, grid, 2] from frame f-1 to f, in frame widths and heights.

    Raises:
        MotionPriorError: the codec has no vectors, the video none in it, or it is shown rotated.
    """
    import av

    try:
        frames, painted, order = _decode(path, grid, last)
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise MotionPriorError(path, f"vectors cannot be decoded ({reason}); {_REMEDY}") from None
    if not frames:
        raise MotionPriorError(path, f"holds no video frames; {_REMEDY}")
    distances = reference_distances(frames, order)
    fields = np.stack(painted) / distances[:, :, None, None, None]
    sources = fill_sources(frames)
    if sources is None:
        if len(frames) > 1:
            raise MotionPriorError(path, f"holds no motion vectors, only I-frames; {_REMEDY}")
        sources = np.zeros(1, np.int64)  # a single picture rests
    return as_stored(fields.sum(axis=1)[sources])


def _decode(path: str, grid: int, last: int | None) -> _CodedVideo:
    import av

    video = _CodedVideo([], [], [])
    with av.open(path) as container:
        stream = container.streams.best("video")
        codec = stream.codec_context.codec.canonical_name
        if codec not in CODECS:
            raise MotionPriorError(path, f"codec {codec} gives no motion vectors; {_REMEDY}")
        stream.codec_context.options = _OPTIONS
        for packet in container.demux(stream):
            if packet.size:
                video.order.append(packet.pts)
            for frame in packet.decode():
                coded, fields = _paint_frame(path, codec, frame, grid)
                video.frames.append(coded)
                video.painted.append(fields)
                if last is not None and _enough(video.frames, last):
                    return video
    return video


def _enough(frames: list[CodedFrame], last: int) -> bool:
    """Whether every frame up to `last` has its references, and there is a field to repeat."""
    complete = len(frames) > last and not frames[-1].bidirectional
    return complete and any(frame.vectors for frame in frames)


def _paint_frame(path: str, codec: str, frame: Any, grid: int) -> tuple[CodedFrame, np.ndarray]:
    if frame.rotation:
        raise MotionPriorError(path, f"is shown rotated by {frame.rotation} degrees; {_REMEDY}")
    from av.video.frame import PictureType

    bidirectional = frame.pict_type == PictureType.B
    data = frame.side_data.get("MOTION_VECTORS")
    fields = np.zeros((2, grid, grid, 2), np.float32)
    # FFmpeg does not fill in the vectors of MPEG-4 B-frames: all that it reports are zero.
    usable = data is not None and not (codec == "mpeg4" and bidirectional)
    if usable:
        fields = paint_vectors(data.to_ndarray(), frame.height, frame.width, grid)
    return CodedFrame(bidirectional, frame.pts, usable), fields


def paint_vectors(vectors: np.ndarray, height: int, width: int, grid: int) -> np.ndarray:
    """Paints vectors over their blocks and averages them onto a grid.

    Where several vectors cover a place (B-frames) each counts in equal parts, so that the sum of
    both results, divided by their distances, is the mean.

    Args:
        vectors: FFmpeg's AVMotionVector records [N].

    Returns:
        float32 [2, grid, grid, 2]: displacement since the past references and towards the future
        ones, each over the whole distance, in frame widths and heights.
    """
    rows, columns = -(-height // RASTER), -(-width // RASTER)
    side = (vectors["source"] > 0).astype(np.int64)
    # A vector points to where the block is in the reference: for a past one, where it came from.
    unit = (2.0 * side - 1.0) / np.maximum(vectors["motion_scale"], 1)
    squares, owner = _covered(vectors, rows, columns)
    count = np.bincount(squares, minlength=rows * columns)
    total = np.empty((2, 2, rows * columns))  # past and future, x and y
    for axis, name in enumerate(("motion_x", "motion_y")):
        places = squares + side[owner] * (rows * columns)
        weights = (vectors[name] * unit)[owner]
        sums = np.bincount(places, weights, minlength=2 * rows * columns)
        total[:, axis] = sums.reshape(2, -1)
    total /= np.maximum(count, 1)
    rasters = total.reshape(2, 2, rows, columns).transpose(0, 2, 3, 1)
    scale = np.array([width, height], np.float32)
    averages = [area_average(raster, RASTER, height, width, grid) for raster in rasters]
    return np.stack(averages) / scale


def _covered(vectors: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat numbers of the raster squares under all blocks, and the block of each."""
    width, height = (vectors[name].astype(np.int64) for name in ("w", "h"))
    left = (vectors["dst_x"] - width // 2) // RASTER
    top = (vectors["dst_y"] - height // 2) // RASTER
    squares, owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    shapes = width // RASTER * 256 + height // RASTER
    for shape in np.unique(shapes).tolist():
        chosen = np.flatnonzero(shapes == shape)
        x = left[chosen, None, None] + np.arange(shape // 256)
        y = top[chosen, None, None] + np.arange(shape % 256)[:, None]
        inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
        squares.append((y * columns + x)[inside])
        owners.append(np.broadcast_to(chosen[:, None, None], inside.shape)[inside])
    return np.concatenate(squares), np.concatenate(owners)


_HELD_PICTURES = 16  # no decoder must hold more for later, so no future reference is further away


def reference_distances(frames: Sequence[CodedFrame], order: Sequence[int | None]) -> np.ndarray:
    """Distance in frames to the nearest past and the nearest future reference.

    A reference is coded before the frame that uses it. I- and P-frames are references; a B-frame
    is one where it is coded before a frame that is shown earlier, for nothing else is a reason to.

    Args:
        frames: in the order in which they are shown.
        order: time stamps in coded order; may hold those of frames that are not given.

    Returns:
        float32 [F, 2], at least 1.
    """
    rank = _coded_rank(frames, order)
    before = np.maximum.accumulate(rank)
    reference = [
        not frame.bidirectional or (number > 0 and before[number - 1] > rank[number])
        for number, frame in enumerate(frames)
    ]
    distances = np.ones((len(frames), 2), np.float32)
    for number in range(len(frames)):
        ahead = min(number + _HELD_PICTURES, len(frames) - 1)
        for side, others in enumerate((range(number - 1, -1, -1), range(number + 1, ahead + 1))):
            usable = (abs(i - number) for i in others if reference[i] and rank[i] < rank[number])
            distances[number, side] = next(usable, 1)
    return distances


def fill_sources(frames: Sequence[CodedFrame]) -> np.ndarray | None:
    """For each frame the frame whose field it shows, int64 [F]; None if none has vectors.

    A B-frame without vectors lies on the way that the next other frame's vectors span and takes
    that frame's. Else the frame before lends its own; the first frames take what comes first.
    """
    known = [number for number, frame in enumerate(frames) if frame.vectors]
    if not known:
        return None
    sources = np.empty(len(frames), np.int64)
    newest = known[0]
    for number, frame in enumerate(frames):
        if frame.vectors:
            newest = number
        sources[number] = newest
        if frame.bidirectional and not frame.vectors:
            others = range(number + 1, len(frames))
            ahead = next((i for i in others if not frames[i].bidirectional), number)
            if frames[ahead].vectors:
                sources[number] = ahead
    return sources


def _coded_rank(frames: Sequence[CodedFrame], order: Sequence[int | None]) -> np.ndarray:
    """Place of each frame in the order of coding, int64 [F]."""
    place = {stamp: rank for rank, stamp in enumerate(order)}
    stamps = [frame.stamp for frame in frames]
    rising = all(a is not None and b is not None and a < b for a, b in pairwise(stamps))
    if rising and len(place) == len(order) and all(stamp in place for stamp in stamps):
        return np.array([place[stamp] for stamp in stamps])
    # Without time stamps that can be trusted (AVI): every B-frame follows the next other frame.
    ahead, keys = len(frames), []
    for number in range(len(frames) - 1, -1, -1):
        if not frames[number].bidirectional:
            ahead = number
        keys.append((ahead, frames[number].bidirectional, number))
    rank = np.empty(len(frames), np.int64)
    rank[[key[2] for key in sorted(keys)]] = np.arange(len(frames))
    return rank
