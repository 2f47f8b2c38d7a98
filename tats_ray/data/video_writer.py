"""Writes H.264 files whose motion vectors are the displacement since the frame before."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

GOP_FRAMES = 16  # short groups of pictures make a random start cheap to decode


def write_h264(
    path: Path, frames: Iterable[np.ndarray], fps: Fraction | int, crf: int = 17
) -> None:
    """Encodes uint8 [H, W, 3] frames (even sides), one after the other, as H.264 in a container
    given by the suffix."""
    import av

    with av.open(str(path), "w") as container:
        stream = None
        for image in frames:
            if stream is None:
                height, width = image.shape[:2]
                stream = open_h264(container, Fraction(fps), height, width, GOP_FRAMES, crf)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        assert stream is not None, "a video has frames"
        container.mux(stream.encode())


def open_h264(container: Any, rate: Fraction, height: int, width: int, gop: int, crf: int) -> Any:
    """Adds a H.264 stream with one reference and no B-frames to an output container."""
    stream = container.add_stream("libx264", rate=rate)
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv420p"
    stream.codec_context.gop_size = gop
    stream.codec_context.max_b_frames = 0
    stream.codec_context.thread_count = 1  # the same bytes on every machine
    stream.options = {
        "crf": str(crf),
        "preset": "veryfast",
        "refs": "1",
        # A lookahead thread gave other bytes for the same frames in one of 20 small videos.
        "x264-params": "sync-lookahead=0",
    }
    return stream
