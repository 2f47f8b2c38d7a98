"""Random periodic textures, the same family for objects and backgrounds."""

from __future__ import annotations

import numpy as np


def random_texture(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """Noise with a power-law spectrum around a random colour.

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
