"""Scenes of textured objects over a textured background, rendered with their ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tats_ray.config.data import SyntheticSettings
from tats_ray.data.synthetic.motion import Path, motion_path

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
    # Look-alikes wear the moving objects' textures, so that appearance tells nothing.
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
    """Noise with a power-law spectrum around a random colour, for objects and backgrounds alike.

    Returns:
        float32 [size, size, 3] in [0, 1], periodic in both axes, deviation about `contrast`.
    """
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
    """Bilinear lookup with wrap-around.

    Args:
        texture: float32 [S, S, 3].
        x, y: pixel coordinates, any shape.

    Returns:
        float32 [..., 3].
    """
    size = texture.shape[0]
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share = (x - left)[..., None].astype(np.float32)
    lower_share = (y - top)[..., None].astype(np.float32)
    left, top = left % size, top % size
    right, lower = (left + 1) % size, (top + 1) % size
    above = texture[top, left] * (1 - right_share) + texture[top, right] * right_share
    below = texture[lower, left] * (1 - right_share) + texture[lower, right] * right_share
    return above * (1 - lower_share) + below * lower_share
