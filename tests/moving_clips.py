"""Clips whose motion is known to the pixel, in any codec."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np

from tats_ray.data.motion.prior import MotionRequest, clips_motion
from tats_ray.data.synthetic.scene import random_texture

HEIGHT, WIDTH = 128, 192
STEP = np.array([3, 2])  # pixels per frame, (x, y)
FRAMES = 14
SQUARE = 48  # side of the moving square
GRID = 16  # points per side of a clip's motion
START = np.array([16, 32])  # its upper left corner in frame 0


def panning_clip(frames: int = FRAMES) -> np.ndarray:
    """A texture that moves by STEP as a whole, uint8 [F, HEIGHT, WIDTH, 3]."""
    return np.stack([np.roll(_texture(0), STEP[::-1] * number, (0, 1)) for number in range(frames)])


def square_clip(frames: int = FRAMES) -> np.ndarray:
    """A textured square that moves by STEP over a texture at rest."""
    clip = np.stack([_texture(0)] * frames)
    for number in range(frames):
        left, top = START + STEP * number
        clip[number, top : top + SQUARE, left : left + SQUARE] = _texture(1)[:SQUARE, :SQUARE]
    return clip


def on_square(points: np.ndarray, number: int, margin: int) -> np.ndarray:
    """Which points (x, y) in frame widths and heights lie that far inside the square."""
    pixels = points * [WIDTH, HEIGHT] - (START + STEP * number)
    return ((pixels >= margin) & (pixels <= SQUARE - margin)).all(axis=-1)


def encode(
    path: Path,
    clip: np.ndarray,
    codec: str = "libx264",
    b_frames: int = 0,
    gop: int = 6,
    **options: str,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.bit_rate = 4_000_000
        stream.options = options
        for image in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def turn_display(path: Path) -> None:
    """Writes a quarter turn into the display matrix of an MP4 file."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def _texture(seed: int) -> np.ndarray:
    texture = random_texture(np.random.default_rng(seed), WIDTH, 0.2)
    return np.round(texture[:HEIGHT] * 255).astype(np.uint8)


def motion_of(
    path, clip, indices, source="vectors", form="field", tubelet=2, cache=None, grid=GRID
):
    """Motion of the frames `indices`; the request crosses processes as JSON."""
    request = MotionRequest(source, form, grid, tubelet, cache)
    request = MotionRequest(**json.loads(json.dumps(asdict(request))))
    indices = np.array(indices, np.int64)
    return clips_motion(request, path, clip[indices][None], indices[None])[0]
