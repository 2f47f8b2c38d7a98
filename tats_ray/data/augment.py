"""Crop, resize and flip of whole batches on the training device.

Decoded frames are stored at a fixed size, whatever the video's aspect. A box is chosen in the
video's own geometry and sampled from the stored frame in relative coordinates, so that neither the
stored size nor the crop distorts the picture, and any map of the same frame can follow the pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tats_ray.config.data import AugmentSettings
from tats_ray.data.randomness import Stream, uniform_rows

# TSN's multi-scale crop: side lengths relative to the short side, and the grid of its 13 offsets.
MULTI_SCALES = (1.0, 0.875, 0.75, 0.66)
MULTI_OFFSETS = np.array(
    [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0),
     (1, 1), (3, 1), (1, 3), (3, 3)]
) / 4.0  # fmt: skip


def crop_boxes(
    settings: AugmentSettings, aspects: np.ndarray, *, seed: int, first: int
) -> np.ndarray:
    """One box and flip per clip.

    Args:
        aspects: float [B], width / height of each video.
        first: run-wide index of the first clip.

    Returns:
        float32 [B, 5]: left, top, right, bottom relative to the frame, and 1.0 to flip.
    """
    noise = uniform_rows(seed, Stream.AUGMENT, first, len(aspects), 5)
    short = np.minimum(aspects, 1.0)  # in units of the video's height
    width = height = short
    place = np.full((len(aspects), 2), 0.5)
    if settings.crop == "full":
        width, height = aspects, np.ones_like(aspects)
    elif settings.crop == "multi_scale":
        width, height = _multi_scale_sides(noise[:, 0], short)
        place = MULTI_OFFSETS[(noise[:, 2] * len(MULTI_OFFSETS)).astype(int)]
    elif settings.crop == "random_resized":
        width, height = _random_resized_sides(settings, noise[:, :2], aspects)
        place = noise[:, 2:4]
    left = place[:, 0] * (aspects - width) / aspects
    top = place[:, 1] * (1.0 - height)
    flip = noise[:, 4] < settings.flip
    return np.stack([left, top, left + width / aspects, top + height, flip], 1).astype(np.float32)


def _multi_scale_sides(noise: np.ndarray, short: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """GroupMultiScaleCrop: width and height from the scales, at most one step apart."""
    count = len(MULTI_SCALES)
    pairs = [(i, j) for i in range(count) for j in range(count) if abs(i - j) <= 1]
    chosen = np.array(pairs)[(noise * len(pairs)).astype(int)]
    scales = np.array(MULTI_SCALES)[chosen]
    return scales[:, 0] * short, scales[:, 1] * short


def _random_resized_sides(
    settings: AugmentSettings, noise: np.ndarray, aspects: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area uniform, aspect log-uniform; sides are clamped to the frame instead of redrawn."""
    low, high = settings.area
    area = (low + noise[:, 0] * (high - low)) * aspects
    log_low, log_high = np.log(settings.aspect)
    ratio = np.exp(log_low + noise[:, 1] * (log_high - log_low))
    return np.minimum(np.sqrt(area * ratio), aspects), np.minimum(np.sqrt(area / ratio), 1.0)


def crop_resize(maps: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resizes each map's box to a square, bilinearly; boxes larger than the square are filtered.

    Where a box is larger, bilinear sampling skips pixels and fine patterns come out as coarse ones
    (aliasing). There a triangle as wide as two output pixels weighs the map's pixels, as PIL's
    `resize(box=...)` and PyTorch's `interpolate(antialias=True)` do.

    Takes any per-pixel maps of the stored frame, float [B, C, H, W], and boxes of `crop_boxes`,
    float [B, 5]; gives float [B, C, size, size].
    """
    sampled = _sample(maps, boxes, size)
    height, width = maps.shape[2:]
    if max(height, width) <= size:
        return sampled
    left, top, right, bottom, flip = boxes.unbind(1)
    rows, row_shares = _triangle(top * height, bottom * height, height, size)
    columns, column_shares = _triangle(left * width, right * width, width, size)
    flipped = flip[:, None, None] > 0
    columns, column_shares = (
        torch.where(flipped, values.flip(1), values) for values in (columns, column_shares)
    )
    filtered = torch.zeros_like(sampled)
    for y, down in zip(rows.unbind(2), row_shares.unbind(2), strict=True):
        for x, across in zip(columns.unbind(2), column_shares.unbind(2), strict=True):
            shares = down[:, None, :, None] * across[:, None, None, :]
            filtered += _read(maps, x, y) * shares
    larger = ((right - left) * width > size) | ((bottom - top) * height > size)
    return torch.where(larger[:, None, None, None], filtered, sampled)


def _triangle(low: Tensor, high: Tensor, pixels: int, size: int) -> tuple[Tensor, Tensor]:
    """The pixels that make up each output pixel of one axis, two by two: one bilinear reading at
    the right place between two neighbours weighs both. Each output is summed by itself, so that it
    is the same in every batch.

    Args:
        low, high: [B], ends of the boxes in pixels.
        pixels: length of the axis.

    Returns:
        [B, size, K] places of the readings in shares of the axis, and their weights.
    """
    scale = (high - low)[:, None] / size  # pixels per output pixel
    reach = scale.clamp(min=1.0)
    centres = low[:, None] + (torch.arange(size, device=low.device) + 0.5) * scale
    readings = math.ceil(max(1.0, pixels / size))
    taps = torch.arange(2 * readings, device=low.device)
    places = (centres - reach + 0.5).floor()[..., None] + taps
    weights = 1 - (places + 0.5 - centres[..., None]).abs() / reach[..., None]
    weights = weights.clamp(min=0.0) * ((places >= 0) & (places < pixels))
    pairs = (weights / weights.sum(dim=2, keepdim=True)).unflatten(2, (readings, 2))
    total = pairs.sum(dim=3)
    between = pairs[..., 1] / total.clamp(min=torch.finfo(total.dtype).tiny)
    return (places[..., ::2] + 0.5 + between) / pixels, total


def _sample(maps: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Reads each map's box at the centres of a square's pixels; as `crop_resize`."""
    centres = (torch.arange(size, device=maps.device, dtype=maps.dtype) + 0.5) / size
    flip = boxes[:, 4:5]
    across = flip + (1 - 2 * flip) * centres  # [B, size], right to left where flipped
    x = boxes[:, 0:1] + across * (boxes[:, 2:3] - boxes[:, 0:1])
    y = boxes[:, 1:2] + centres * (boxes[:, 3:4] - boxes[:, 1:2])
    return _read(maps, x, y)


def _read(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear values [B, C, size, size] at all pairs of places x and y [B, size], in shares of the
    map's width and height."""
    size = x.shape[1]
    grid = torch.stack(
        [x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1
    )
    return F.grid_sample(maps, grid * 2 - 1, padding_mode="border", align_corners=False)


def augment_clips(clips: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crops, resizes and flips uint8 [B, T, H, W, 3] by boxes of `crop_boxes`, float [B, 5]; gives
    float32 [B, 3, T, size, size] in [0, 1]."""
    batch, frames, height, width, channels = clips.shape
    maps = clips.permute(0, 4, 1, 2, 3).reshape(batch, channels * frames, height, width)
    pixels = crop_resize(maps.float() / 255.0, boxes, size)
    return pixels.view(batch, channels, frames, size, size)


def crop_motion(motion: Tensor, boxes: Tensor, points: int, size: int) -> Tensor:
    """Carries motion through the crop, resize and flip of its clip.

    Args:
        motion: float [B, S, G, G, 2], displacement at a grid of points over the whole frame, in
            frame widths and heights.
        boxes: float [B, 5] from `crop_boxes`.
        points: points per side of the crop, in the middles of a regular grid.
        size: side of the model input.

    Returns:
        float [B, S, points, points, 2], displacement (x, y) in pixels of the model input.
    """
    batch, slices, grid = motion.shape[:3]
    maps = motion.permute(0, 1, 4, 2, 3).reshape(batch, slices * 2, grid, grid)
    moved = _sample(maps, boxes, points).view(batch, slices, 2, points, points)
    sides = torch.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]], dim=1)
    mirror = torch.stack([1 - 2 * boxes[:, 4], torch.ones_like(boxes[:, 4])], dim=1)
    return moved.permute(0, 1, 3, 4, 2) * (size * mirror / sides)[:, None, None, None, :]
