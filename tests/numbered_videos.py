"""Videos whose frames carry their number in black and white blocks, which lossy coding keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType

BITS = 8
RATE = 25  # frames per second
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
    forced: frozenset[int] = frozenset()  # frames that are keyframes whatever `keyint`

    def __str__(self) -> str:
        """Names a test."""
        return f"{self.encoder}{self.suffix} {self.keyint} {self.b_frames} {self.options}"


def x264(suffix: str, keyint: int, b_frames: int, form: str = "", forced: tuple = ()) -> Coding:
    """Args: form: open-gop=1 | intra-refresh=1 | b-pyramid=normal, or nothing."""
    settings = [
        f"keyint={keyint}:min-keyint={max(1, keyint // 2)}:scenecut=0:b-adapt=0",
        f"bframes={b_frames}:sync-lookahead=0:b-pyramid=none",
        form,
    ]
    options = {"preset": "veryfast", "x264-params": ":".join(filter(None, settings))}
    return Coding("libx264", suffix, keyint, b_frames, options, frozenset(forced))


def x265(suffix: str, keyint: int, b_frames: int, form: str = "open-gop=0") -> Coding:
    """Args: form: open-gop=1 | open-gop=0."""
    settings = f"keyint={keyint}:min-keyint={keyint}:scenecut=0:bframes={b_frames}:b-adapt=0"
    threads = "log-level=none:pools=1:frame-threads=1"
    options = {"preset": "ultrafast", "x265-params": f"{settings}:{threads}:{form}"}
    return Coding("libx265", suffix, keyint, b_frames, options)


def plain(encoder: str, suffix: str, keyint: int, b_frames: int = 0) -> Coding:
    """An encoder without settings of its own."""
    fast = {"deadline": "realtime", "cpu-used": "8"} if encoder.startswith("libvpx") else {}
    return Coding(encoder, suffix, keyint, b_frames, {"b": "2M", **fast})


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


def write_numbered(
    folder: Path,
    coding: Coding,
    frames: int = 60,
    number: Callable[[int], int] = lambda frame: frame,
) -> Path:
    """Writes frames of 25 per second; frame f carries `number(f)`, which is below 256."""
    path = folder / f"numbered{coding.suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(coding.encoder, rate=RATE)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuvj420p" if coding.encoder == "mjpeg" else "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, RATE)
        context.gop_size, context.max_b_frames = coding.keyint, coding.b_frames
        context.thread_count = 1
        stream.options = dict(coding.options)
        for place in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number(place)), format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, RATE)
            if place in coding.forced:
                frame.pict_type = PictureType.I
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
