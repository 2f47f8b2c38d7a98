"""Decodes clips of one video: decord what it reads exactly, PyAV all else (see `video_index`).

This module runs inside the decoder process (`decoder_process`) and imports neither torch nor Ray.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tats_ray.data.container import REPAIR, quarter_turns, regular_file
from tats_ray.data.frame_cache import cache_file, cached_frames
from tats_ray.data.motion.prior import MotionRequest, clips_motion
from tats_ray.data.sampling import (
    frame_indices,
    jittered_segment_indices,
    segment_indices,
    window_indices,
)
from tats_ray.data.video_index import Reading, VideoIndex, read_frames, seek_index, video_index
from tats_ray.errors import StorageError, VideoDecodeError

_INEXACT = (
    "decord: its groups of pictures, time stamps or codec make decord give other frames than those "
    "asked for; set data.decoder=auto, or re-encode it with tats-ray prepare --reencode"
)

# Frames `stride` apart | spread over a window of frames x stride | one at the same place of every
# segment | one at random of every segment
Sampling = Literal["dense", "window", "segments", "jittered_segments"]


@dataclass(frozen=True)
class PreparedVideo:
    """What tats-ray prepare found out about a video; plain values."""

    reading: Reading
    frames: int
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class DecodeRequest:
    """Clips of one video; the numbers are those of the functions that find the frames."""

    path: str
    frames: int
    stride: int
    starts: list[float]  # one per clip
    height: int  # of the stored frame
    width: int
    decoder: str  # auto | decord | pyav
    motion: MotionRequest | None = None
    sampling: Sampling = "dense"
    prepared: PreparedVideo | None = None  # None: looked at here
    cache: str | None = None  # folder of decoded videos

    def indices(self, total: int) -> np.ndarray:
        """Frame numbers of every clip, int64 [R, T], in a video of `total` frames."""
        return np.stack([self._clip_indices(total, start) for start in self.starts])

    def _clip_indices(self, total: int, start: float) -> np.ndarray:
        if self.sampling in ("dense", "window"):
            spread = frame_indices if self.sampling == "dense" else window_indices
            return spread(total, self.frames, self.stride, start)
        find = segment_indices if self.sampling == "segments" else jittered_segment_indices
        return find(total, self.frames, start)


class DecodedClips(NamedTuple):
    """R clips of one video."""

    frames: np.ndarray  # uint8 [R, T, height, width, 3], RGB
    motion: np.ndarray | None  # float32 [R, T', G, G, 2], as `clips_motion`; None if not asked for

    def repeated(self, times: int) -> DecodedClips:
        """Each clip so many times, one after the other."""
        if times == 1:
            return self
        motion = None if self.motion is None else self.motion.repeat(times, axis=0)
        return DecodedClips(self.frames.repeat(times, axis=0), motion)


class _Pictures(NamedTuple):
    frames: np.ndarray  # uint8 [R, T, height, width, 3]
    indices: np.ndarray  # int64 [R, T]


def decode_clips(request: DecodeRequest) -> DecodedClips:
    """Decodes the clips of one video, and their motion where it is asked for.

    Raises:
        VideoDecodeError: path and reason, from every decoder that was tried.
        MotionPriorError: the pictures are fine, the motion cannot be had.
    """
    frames, indices = _decode_pictures(request)
    if request.motion is None:
        return DecodedClips(frames, None)
    return DecodedClips(frames, clips_motion(request.motion, request.path, frames, indices))


def _decode_pictures(request: DecodeRequest) -> _Pictures:
    version = _check_file(request)
    index = _find_index(request)
    if request.decoder == "decord" and index.reading != "decord":
        raise VideoDecodeError(request.path, _INEXACT)
    by_decord = request.decoder != "pyav" and index.reading == "decord"
    reasons = []
    if by_decord:
        try:
            return _decode_by(_decode_decord, _all_by_decord, request, index, version)
        except StorageError:
            raise
        # Decoders raise types of their own (DECORDError derives from Exception alone).
        except Exception as error:
            reasons.append(f"decord: {_reason(error)}")
    if request.decoder != "decord":
        try:
            return _decode_by(_decode_pyav, _all_by_pyav, request, index, version)
        except StorageError:
            raise
        except Exception as error:
            reasons.append(f"pyav: {_reason(error)}; {REPAIR}")
    raise VideoDecodeError(request.path, "; ".join(reasons))


def _check_file(request: DecodeRequest) -> tuple[int, int]:
    """Size and time of change of the file, which are those of the prepared video if there is one.

    Raises:
        VideoDecodeError: they are not.
    """
    status, prepared = regular_file(request.path), request.prepared
    version = (status.st_size, status.st_mtime_ns)
    if prepared is None or version == (prepared.bytes, prepared.mtime_ns):
        return version
    raise VideoDecodeError(
        request.path,
        f"was replaced since its manifest was made ({prepared.bytes} bytes then, {status.st_size} "
        "now, or another time of change); run tats-ray prepare again",
    )


def _find_index(request: DecodeRequest) -> VideoIndex:
    """What was found when the video was prepared, or is found now."""
    if request.prepared is not None:
        return VideoIndex(request.prepared.frames, request.prepared.reading)
    try:
        return video_index(request.path)
    except Exception as error:
        raise VideoDecodeError(request.path, f"pyav: {_reason(error)}; {REPAIR}") from None


def _decode_by(
    clips: Callable[[DecodeRequest, VideoIndex], _Pictures],
    whole: Callable[[DecodeRequest, VideoIndex], Iterator[np.ndarray]],
    request: DecodeRequest,
    index: VideoIndex,
    version: tuple[int, int],
) -> _Pictures:
    """The clips by one decoder; with a cache from there, where it puts the whole video first."""
    if request.cache is None:
        return clips(request, index)
    shape = (index.frames, request.height, request.width, 3)
    file = cache_file(Path(request.cache), request.path, version, shape)
    frames = cached_frames(file, shape, lambda: whole(request, index))
    indices = request.indices(index.frames)
    return _Pictures(frames[indices], indices)


def _decode_decord(request: DecodeRequest, index: VideoIndex) -> _Pictures:
    indices = request.indices(index.frames)
    frames = _decord_reader(request).get_batch(indices.reshape(-1)).asnumpy()
    return _Pictures(frames.reshape(*indices.shape, *frames.shape[1:]), indices)


def _all_by_decord(request: DecodeRequest, index: VideoIndex) -> Iterator[np.ndarray]:
    reader, size = _decord_reader(request), 64
    for start in range(0, index.frames, size):
        numbers = range(start, min(start + size, index.frames))
        yield reader.get_batch(list(numbers)).asnumpy()


def _decord_reader(request: DecodeRequest) -> Any:
    import decord

    return decord.VideoReader(
        request.path, num_threads=1, height=request.height, width=request.width
    )


def _decode_pyav(request: DecodeRequest, index: VideoIndex) -> _Pictures:
    indices = request.indices(index.frames)
    pictures = dict(_pyav_frames(request, index, indices.reshape(-1).tolist()))
    frames = np.stack([pictures[number] for number in indices.reshape(-1).tolist()])
    return _Pictures(frames.reshape(*indices.shape, *frames.shape[1:]), indices)


def _all_by_pyav(request: DecodeRequest, index: VideoIndex) -> Iterator[np.ndarray]:
    for _, picture in _pyav_frames(request, index, range(index.frames)):
        yield picture[None]


def _pyav_frames(
    request: DecodeRequest, index: VideoIndex, numbers: Iterable[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Frames as they are to be shown, by ascending numbers, each once."""
    from av.video.reformatter import VideoReformatter

    if index.reading != "in_order" and not index.stamps:
        index = replace(seek_index(request.path), frames=index.frames)
    scaler = VideoReformatter()  # one for all frames: a frame's own takes most of the time
    for number, frame in read_frames(request.path, index, numbers):
        yield number, upright(frame, scaler, request.height, request.width)


def upright(frame: Any, scaler: Any, height: int, width: int) -> np.ndarray:
    """The picture as it is to be shown, uint8 [height, width, 3]; decord does so by itself."""
    turns = quarter_turns(frame)
    if turns % 2:
        height, width = width, height
    picture = scaler.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, turns))


def _reason(error: Exception) -> str:
    """The informative line of a decoder's message, without the place in its C++ source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+: ", "", lines[0])[:200]
