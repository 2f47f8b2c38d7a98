"""Scenes of textured objects over a textured background, rendered with their ground truth.

A kind of motion is a displacement over time that is zero at a random reference frame; the object's
place at that frame is uniform on a frame that wraps around. So position, orientation and appearance
are distributed alike in every single frame of every kind, and only the change over time separates
them. The kinds of path keep their meaning under a horizontal flip, the directions do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tats_ray.config.data import SyntheticSettings

FRAMES_PER_SECOND = 16  # of the files; clips are read by frame numbers, so that no rate matters
_WORLD = 0  # of the random numbers; the published results are of this one
_OBJECT_CONTRAST = 0.22  # above the background's: objects stand out, moving or not


@dataclass(frozen=True)
class SceneObject:
    texture: np.ndarray  # float32 [S, S, 3]
    centre: np.ndarray  # (x, y) in pixels at the path's zero
    half_axes: np.ndarray  # pixels
    exponent: float  # outline |x/a|^e + |y/b|^e = 1: 2 is an ellipse, 8 almost a rectangle
    angle: float
    path: Path  # relative to the background


@dataclass(frozen=True)
class RenderedClip:
    frames: np.ndarray  # uint8 [F, S, S, 3]
    moving: np.ndarray  # bool [F, S, S], pixels of objects that move relative to the background
    static: np.ndarray  # bool [F, S, S], pixels of static distractors that rest on the background


@dataclass(frozen=True)
class Scene:
    background: np.ndarray  # float32 [S, S, 3]
    pan: np.ndarray  # float [F, 2], camera displacement in pixels
    static: list[SceneObject]
    moving: list[SceneObject]


def random_scene(settings: SyntheticSettings, kind: str, seed: int) -> Scene:
    """A scene whose moving objects all move in the given kind.

    Everything but the paths depends on the seed alone: two kinds with one seed differ in motion
    only.
    """
    rng = np.random.default_rng([_WORLD, seed])
    background = random_texture(rng, settings.size, settings.background_contrast)
    # Static distractors have the moving objects' textures, so that appearance reveals nothing.
    textures = [
        random_texture(rng, settings.size, _OBJECT_CONTRAST) for _ in range(settings.moving_objects)
    ]
    rest = Path(np.zeros((settings.frames, 2)), np.zeros(settings.frames))
    static = [_random_object(rng, settings, texture, rest) for texture in textures]
    moving = []
    for texture in textures:
        path = motion_path(rng, kind, settings.frames, (settings.speed[0], settings.speed[1]))
        moving.append(_random_object(rng, settings, texture, path))
    return Scene(background, _random_pan(rng, settings), static, moving)


def render(scene: Scene) -> RenderedClip:
    """Draws background, static distractors and moving objects, in this order, frame by frame."""
    size = scene.background.shape[0]
    count = len(scene.pan)
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    frames = np.empty((count, size, size, 3), dtype=np.uint8)
    moving = np.zeros((count, size, size), dtype=bool)
    static = np.zeros((count, size, size), dtype=bool)
    for index in range(count):
        pan_x, pan_y = scene.pan[index]
        image = sample_texture(scene.background, columns - pan_x, rows - pan_y)
        for item in scene.static:
            inside = _paint(image, item, columns - pan_x, rows - pan_y, index)
            static[index] |= inside
        for item in scene.moving:
            inside = _paint(image, item, columns - pan_x, rows - pan_y, index)
            moving[index] |= inside
            static[index] &= ~inside
        frames[index] = np.round(image * 255).astype(np.uint8)
    return RenderedClip(frames, moving, static)


def _paint(
    image: np.ndarray, item: SceneObject, x: np.ndarray, y: np.ndarray, index: int
) -> np.ndarray:
    """Blends one object into the image in place; returns the pixels that it mostly covers."""
    size = image.shape[0]
    centre = item.centre + item.path.offset[index] * size
    # Shortest way around the wrapping frame.
    dx = (x - centre[0] + size / 2) % size - size / 2
    dy = (y - centre[1] + size / 2) % size - size / 2
    turn = item.angle + item.path.angle[index]
    across = np.cos(turn) * dx + np.sin(turn) * dy
    along = -np.sin(turn) * dx + np.cos(turn) * dy
    radius = (
        np.abs(across / item.half_axes[0]) ** item.exponent
        + np.abs(along / item.half_axes[1]) ** item.exponent
    ) ** (1 / item.exponent)
    cover = np.clip((1 - radius) * item.half_axes.min() + 0.5, 0, 1)  # one pixel of soft rim
    touched = cover > 0
    colour = sample_texture(item.texture, across[touched], along[touched])
    share = cover[touched][:, None].astype(np.float32)
    image[touched] = image[touched] * (1 - share) + colour * share
    return cover > 0.5


def _random_object(
    rng: np.random.Generator, settings: SyntheticSettings, texture: np.ndarray, path: Path
) -> SceneObject:
    low, high = settings.object_size
    return SceneObject(
        texture=texture,
        centre=rng.uniform(0, settings.size, size=2),
        half_axes=rng.uniform(low, high, size=2) * settings.size / 2,
        exponent=rng.uniform(2.0, 8.0),
        angle=rng.uniform(0, 2 * np.pi),
        path=path,
    )


def _random_pan(rng: np.random.Generator, settings: SyntheticSettings) -> np.ndarray:
    """Constant camera drift in some clips, rest in the others; pixels, float [F, 2]."""
    panning = rng.random() < settings.panning_share
    direction = rng.uniform(0, 2 * np.pi)
    speed = rng.uniform(0.2, 0.6) * settings.speed[1] * settings.size * panning
    step = speed * np.array([np.cos(direction), np.sin(direction)])
    return np.arange(settings.frames)[:, None] * step


def random_texture(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """Noise with a power-law spectrum around a random colour, for objects and backgrounds alike;
    float32 [size, size, 3] in [0, 1], periodic in both axes, deviation about `contrast`."""
    frequency = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None] ** 2
    frequency[0, 0] = 1.0
    slope = rng.uniform(0.9, 1.5)
    spectrum = frequency ** (-slope / 2)
    spectrum[0, 0] = 0.0
    noise = rng.standard_normal((3, size, size))
    field = np.fft.irfft2(np.fft.rfft2(noise) * spectrum, s=(size, size))
    # Colours share most of their structure, as real surfaces do.
    field = 0.7 * field[:1] + 0.3 * field
    field /= field.std(axis=(1, 2), keepdims=True)
    colour = rng.uniform(0.3, 0.7, size=(3, 1, 1))
    return np.clip(colour + contrast * field, 0, 1).transpose(1, 2, 0).astype(np.float32)


def sample_texture(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear lookup with wrap-around in float32 [S, S, 3], at pixel coordinates of any shape
    [...] -> float32 [..., 3]."""
    size = texture.shape[0]
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share = (x - left)[..., None].astype(np.float32)
    lower_share = (y - top)[..., None].astype(np.float32)
    left, top = left % size, top % size
    right, lower = (left + 1) % size, (top + 1) % size
    above = texture[top, left] * (1 - right_share) + texture[top, right] * right_share
    below = texture[lower, left] * (1 - right_share) + texture[lower, right] * right_share
    return above * (1 - lower_share) + below * lower_share


class Path(NamedTuple):
    """Displacement in frame widths, float [F, 2] (x, y), and rotation in radians, float [F]."""

    offset: np.ndarray
    angle: np.ndarray


class Pace(NamedTuple):
    """Random parameters that every kind reads in its own way."""

    speed: float  # frame widths per frame
    direction: np.ndarray  # unit vector
    period: float  # frames
    phase: float  # radians
    spin: float  # +1 or -1


def _linear(time: np.ndarray, pace: Pace) -> np.ndarray:
    return pace.speed * time[:, None] * pace.direction


def _oscillate(time: np.ndarray, pace: Pace) -> np.ndarray:
    turn = 2 * np.pi * time / pace.period + pace.phase
    reach = pace.speed * pace.period / 4  # the mean speed is that of `linear`
    return reach * np.sin(turn)[:, None] * pace.direction


def _circle(time: np.ndarray, pace: Pace) -> np.ndarray:
    turn = pace.spin * 2 * np.pi * time / pace.period + pace.phase
    radius = pace.speed * pace.period / (2 * np.pi)
    return radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _zigzag(time: np.ndarray, pace: Pace) -> np.ndarray:
    across = np.array([-pace.direction[1], pace.direction[0]])
    cycle = (time / pace.period + pace.phase / (2 * np.pi)) % 1.0
    triangle = 4 * np.abs(cycle - 0.5) - 1
    share = pace.speed / np.sqrt(2)
    return share * (time[:, None] * pace.direction + triangle[:, None] * pace.period / 4 * across)


def _stop_and_go(time: np.ndarray, pace: Pace) -> np.ndarray:
    cycle = (time / pace.period + pace.phase / (2 * np.pi)) % 1.0
    moving = (cycle < 0.5).astype(float) * 2
    return pace.speed * np.cumsum(moving)[:, None] * pace.direction


def _rest(time: np.ndarray, pace: Pace) -> np.ndarray:
    return np.zeros((len(time), 2))


KINDS: dict[str, Callable[[np.ndarray, Pace], np.ndarray]] = {
    "linear": _linear,
    "oscillate": _oscillate,
    "circle": _circle,
    "zigzag": _zigzag,
    "stop_and_go": _stop_and_go,
    "spin": _rest,  # turns in place
}

# Straight paths told apart by their direction: easier than the kinds of path.
DIRECTIONS = ("right", "down_right", "down", "down_left", "left", "up_left", "up", "up_right")
_SPREAD = 0.8  # share of a direction's sector that its paths fill

CLASSES: dict[str, tuple[str, ...]] = {"paths": tuple(KINDS), "directions": DIRECTIONS}


def motion_path(
    rng: np.random.Generator, kind: str, frames: int, speed: tuple[float, float]
) -> Path:
    """Random path of a kind or direction; the same generator state gives all of them the same
    parameters."""
    share = rng.uniform()
    if kind in DIRECTIONS:
        share = (DIRECTIONS.index(kind) + _SPREAD * (share - 0.5)) / len(DIRECTIONS)
    direction = 2 * np.pi * share
    pace = Pace(
        speed=rng.uniform(*speed),
        direction=np.array([np.cos(direction), np.sin(direction)]),
        period=rng.uniform(8.0, 16.0),
        phase=rng.uniform(0, 2 * np.pi),
        spin=rng.choice([-1.0, 1.0]),
    )
    reference = int(rng.integers(frames))
    time = np.arange(frames, dtype=float)
    offset = KINDS.get(kind, _linear)(time, pace)
    # A quarter turn in a few frames moves the rim about as fast as the other kinds move.
    turn = pace.spin * 8 * pace.speed * (time - reference) if kind == "spin" else np.zeros(frames)
    return Path(offset - offset[reference], turn)
