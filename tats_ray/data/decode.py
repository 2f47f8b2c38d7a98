"""Decodes the frames of one clip. decord by default, PyAV for what decord cannot read.

This module runs inside the decoder process (`decoder_process`) and imports neither torch nor Ray.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tats_ray.data.sampling import frame_indices
from tats_ray.errors import VideoDecodeError

# Containers often promise a frame or two more than they hold; the last frame stands in for those.
TOLERATED_MISSING_FRAMES = 2


@dataclass(frozen=True)
class DecodeRequest:
    """One clip to decode; the numbers are those of `frame_indices`."""

    path: str
    frames: int
    stride: int
    start: float
    height: int  # of the canvas
    width: int
    decoder: str  # auto | decord | pyav


def decode_clip(request: DecodeRequest) -> np.ndarray:
    """Decodes one clip.

    Returns:
        uint8 [T, height, width, 3], RGB.

    Raises:
        VideoDecodeError: path and reason, from every decoder that was tried.
    """
    _check_file(request.path)
    names = ["decord", "pyav"] if request.decoder == "auto" else [request.decoder]
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
    if not file.is_file():
        raise VideoDecodeError(path, "no such file")
    if file.stat().st_size == 0:
        raise VideoDecodeError(path, "file is empty")


def _decode_decord(request: DecodeRequest) -> np.ndarray:
    import decord

    reader = decord.VideoReader(
        request.path, num_threads=1, height=request.height, width=request.width
    )
    if len(reader) == 0:
        raise ValueError("holds no video frames")
    indices = frame_indices(len(reader), request.frames, request.stride, request.start)
    return reader.get_batch(indices).asnumpy()


def _decode_pyav(request: DecodeRequest) -> np.ndarray:
    """Decodes from the first frame and counts output frames: time stamps can be junk (AVI)."""
    import av

    with av.open(request.path) as container:
        if not container.streams.video:
            raise ValueError("holds no video stream")
        stream = container.streams.video[0]
        total = sum(1 for packet in container.demux(stream) if packet.size)
    if total == 0:
        raise ValueError("holds no video frames")
    indices = frame_indices(total, request.frames, request.stride, request.start)
    wanted, last = set(indices.tolist()), int(indices[-1])
    pictures: dict[int, np.ndarray] = {}
    with av.open(request.path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                pictures[number] = frame.to_ndarray(
                    format="rgb24", width=request.width, height=request.height
                )
            if number == last:
                break
    if not pictures or last - max(pictures) > TOLERATED_MISSING_FRAMES * request.stride:
        raise ValueError(f"frame {last} of {total} cannot be decoded")
    newest = max(pictures)
    return np.stack([pictures[min(index, newest)] for index in indices.tolist()])


_DECODERS: dict[str, Callable[[DecodeRequest], np.ndarray]] = {
    "decord": _decode_decord,
    "pyav": _decode_pyav,
}


def _reason(error: Exception) -> str:
    """The telling line of a decoder's message, without the place in its C++ source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+: ", "", lines[0])[:200]
