"""What a step reads besides weights: pixels, mask noise and targets.

All of it is seeded by the clips' run-wide index, so that a rollout actor, a Train worker and a
restarted process see the same crop, and an advantage belongs to the mask that is trained on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tats_ray.config import Config
from tats_ray.data.augment import augment_clips, crop_boxes, crop_motion
from tats_ray.data.clips import Clips
from tats_ray.data.randomness import Stream, gumbel_rows, uniform_rows
from tats_ray.models.mae import target_index


def clip_pixels(config: Config, clips: Clips, device: torch.device) -> Tensor:
    """Decoded clips -> augmented float32 [B, 3, T, size, size] in [0, 1] on the device."""
    boxes = crop_boxes(config.data.augment, clips.aspects, seed=config.run.seed, first=clips.first)
    frames = torch.from_numpy(clips.frames).to(device, non_blocking=True)
    return augment_clips(frames, torch.from_numpy(boxes).to(device), config.data.size)


def clip_motion(config: Config, clips: Clips, device: torch.device) -> Tensor | None:
    """Motion of the augmented clips as `crop_motion`, [B, T', P, P, 2], or None without it."""
    if clips.motion is None:
        return None
    boxes = crop_boxes(config.data.augment, clips.aspects, seed=config.run.seed, first=clips.first)
    motion = torch.from_numpy(clips.motion).to(device, non_blocking=True)
    return crop_motion(
        motion, torch.from_numpy(boxes).to(device), config.motion_points, config.data.size
    )


def mask_noise(
    config: Config, first: int, rows: int, device: torch.device, draw: int = 0
) -> Tensor:
    """Gumbel noise float32 [rows, N] of these clips; `draw` counts the token sets of a clip."""
    noise = gumbel_rows(config.run.seed, Stream.MASK, first, rows, config.grid.tokens, lane=draw)
    return torch.from_numpy(noise).to(device, non_blocking=True)


def target_noise(
    config: Config, first: int, rows: int, device: torch.device, draw: int = 0
) -> Tensor | None:
    """Noise float32 [rows, N] that chooses the predicted masked tokens of `target_fraction`; None
    where all are predicted."""
    tokens = config.grid.tokens
    if config.targets == tokens - config.visible:
        return None
    noise = uniform_rows(config.run.seed, Stream.TARGET, first, rows, tokens, lane=draw)
    return torch.from_numpy(noise.astype(np.float32)).to(device)


def choose_targets(config: Config, visible: Tensor, first: int, draw: int = 0) -> Tensor:
    """Predicted masked tokens, int64 [B, q]: all, or the seeded subset of `target_fraction`."""
    noise = target_noise(config, first, len(visible), visible.device, draw)
    return target_index(visible, config.grid.tokens, config.targets, noise)
