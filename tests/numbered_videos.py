"""Videos whose frames carry their number in black and white blocks, which lossy coding keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8
BLOCK = 16  # pixels; the number stands in the top row of blocks, its complement in the second
SIZE = (64, BLOCK * BITS)  # height, width


@dataclass(frozen=True)
class Coding:
    """How a video is coded."""

    encoder: str
    suffix: str
    keyint: int = 12
    b_frames: int = 0
    options: dict[str, str] = field(default_factory=dict)


def picture(number: int) -> np.ndarray:
    """Frame `number`, uint8 [64, 128, 3]: its bits, and a pattern that moves below them."""
    bits = number >> np.arange(BITS) & 1
    blocks = np.kron(np.stack([bits, 1 - bits]), np.ones((BLOCK, BLOCK))) * 255
    x, y = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0] - 2 * BLOCK))
    pattern = 127 + 100 * np.sin((x + 2 * number) / 7) * np.cos((y - number) / 5)
    grey = np.concatenate([blocks, pattern]).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def read_number(image: np.ndarray) -> int | None:
    """The number of a decoded frame; None where its blocks contradict each other."""
    blocks = image[: 2 * BLOCK].mean(axis=2).reshape(2, BLOCK, BITS, BLOCK).mean(axis=(1, 3))
    bits, complement = blocks > 127
    if (bits == complement).any():
        return None
    return int(bits @ (1 << np.arange(BITS)))


def write_numbered(path: Path, coding: Coding, frames: int = 96, rate: int = 25) -> Path:
    """Writes `frames` numbered frames (at most 256)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(coding.encoder, rate=rate)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuvj420p" if coding.encoder == "mjpeg" else "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, rate)
        context.gop_size, context.max_b_frames = coding.keyint, coding.b_frames
        context.thread_count = 1
        stream.options = dict(coding.options)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
