"""Decodes clips of one video. decord by default, PyAV for what decord cannot read or count.

This module runs inside the decoder process (`decoder_process`) and imports neither torch nor Ray.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tats_ray.data.container import (
    MISSING_FRAMES,
    count_frames,
    keeps_time_stamps,
    quarter_turns,
)
from tats_ray.data.motion.prior import MotionRequest, clips_motion
from tats_ray.data.sampling import (
    frame_indices,
    jittered_segment_indices,
    segment_indices,
    window_indices,
)
from tats_ray.errors import VideoDecodeError

# decord finds frames by time stamps. In an AVI with B-frames it gives frames up to a group of
# pictures away after a seek, in an MPEG program stream always, and says nothing.
_MISCOUNTED = (
    "decord: counts the frames of AVI and MPEG files wrongly; set data.decoder=auto, or re-encode "
    "with jobs/prepare_data.py --reencode"
)

# Frames `stride` apart | spread over a window of frames x stride | one at the same place of every
# segment | one at random of every segment
Sampling = Literal["dense", "window", "segments", "jittered_segments"]


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
    _check_file(request.path)
    stamped = keeps_time_stamps(request.path)
    if request.decoder == "decord" and not stamped:
        raise VideoDecodeError(request.path, _MISCOUNTED)
    names = ["decord", "pyav"] if stamped else ["pyav"]
    if request.decoder != "auto":
        names = [request.decoder]
    reasons = []
    for name in names:
        try:
            return _DECODERS[name](request)
        # Decoders raise types of their own (DECORDError derives from Exception alone).
        except Exception as error:
            reasons.append(f"{name}: {_reason(error)}")
    raise VideoDecodeError(request.path, "; ".join(reasons))


def _check_file(path: str) -> None:
    file = Path(path)
    if not file.exists():
        raise VideoDecodeError(path, "no such file")
    if not file.is_file():  # a pipe would hang its reader
        raise VideoDecodeError(path, "is not a file but a folder, pipe or device")
    if file.stat().st_size == 0:
        raise VideoDecodeError(path, "file is empty")


def _decode_decord(request: DecodeRequest) -> _Pictures:
    import decord

    reader = decord.VideoReader(
        request.path, num_threads=1, height=request.height, width=request.width
    )
    if len(reader) == 0:
        raise ValueError("holds no video frames")
    indices = request.indices(len(reader))
    frames = reader.get_batch(indices.reshape(-1)).asnumpy()
    return _Pictures(frames.reshape(*indices.shape, *frames.shape[1:]), indices)


def _decode_pyav(request: DecodeRequest) -> _Pictures:
    """Decodes from the first frame and counts output frames: time stamps can be junk (AVI)."""
    import av
    from av.video.reformatter import VideoReformatter

    total = count_frames(request.path)
    if total == 0:
        raise ValueError("holds no video frames")
    indices = request.indices(total)
    wanted, last = set(indices.reshape(-1).tolist()), int(indices.max())
    pictures: dict[int, np.ndarray] = {}
    scaler = VideoReformatter()  # one for all frames: a frame's own takes most of the time
    with av.open(request.path) as container:
        for number, frame in enumerate(container.decode(container.streams.best("video"))):
            if number in wanted:
                pictures[number] = _upright(frame, scaler, request.height, request.width)
            if number == last:
                break
    if not pictures or last - max(pictures) > MISSING_FRAMES * request.stride:
        raise ValueError(f"frame {last} of {total} cannot be decoded")
    newest = max(pictures)
    frames = np.stack([pictures[min(index, newest)] for index in indices.reshape(-1).tolist()])
    return _Pictures(frames.reshape(*indices.shape, *frames.shape[1:]), indices)


def _upright(frame: Any, scaler: Any, height: int, width: int) -> np.ndarray:
    """The picture as it is to be shown, uint8 [height, width, 3]; decord does so by itself."""
    turns = quarter_turns(frame)
    if turns % 2:
        height, width = width, height
    picture = scaler.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, turns))


_DECODERS: dict[str, Callable[[DecodeRequest], _Pictures]] = {
    "decord": _decode_decord,
    "pyav": _decode_pyav,
}


def _reason(error: Exception) -> str:
    """The informative line of a decoder's message, without the place in its C++ source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+: ", "", lines[0])[:200]
