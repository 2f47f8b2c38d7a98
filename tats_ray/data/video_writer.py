"""Writes H.264 files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

GOP_FRAMES = 16  # short groups of pictures make a random start cheap to decode


def write_h264(path: Path, frames: np.ndarray, fps: int, crf: int = 17) -> None:
    """Encodes uint8 [F, H, W, 3] (even sides) as H.264 in a container given by the suffix."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = GOP_FRAMES
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
