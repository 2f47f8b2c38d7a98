"""What a step reads besides weights: pixels, motion and noise of its clips, on the device.

All of it is seeded by the clips' run-wide index, so that a rollout worker, a Train worker and a
restarted process see the same crop, and an advantage belongs to the mask that is trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tats_ray.config.data import AugmentSettings
from tats_ray.config.geometry import TokenGrid
from tats_ray.data.augment import augment_clips, crop_boxes, crop_motion
from tats_ray.data.clips import Clips
from tats_ray.data.randomness import Stream, gumbel_rows, uniform_rows


@dataclass(frozen=True)
class ClipInputs:
    """The clips of a pre-training run as its steps read them."""

    seed: int  # of the run
    augment: AugmentSettings
    size: int  # side of the model input in pixels
    grid: TokenGrid
    slice_noise: float  # of the noise of a time slice, in units of a token's own
    visible: int  # visible tokens per clip
    targets: int  # masked tokens per clip that the decoder predicts
    motion_points: int  # points per side of the model input at which motion is given

    def pixels(self, clips: Clips, device: torch.device) -> Tensor:
        """Decoded clips -> augmented float32 [B, 3, T, size, size] in [0, 1]."""
        frames = torch.from_numpy(clips.frames).to(device, non_blocking=True)
        return augment_clips(frames, self._boxes(clips, device), self.size)

    def motion(self, clips: Clips, device: torch.device) -> Tensor | None:
        """Motion of the augmented clips as `crop_motion`, [B, T', P, P, 2]; None without it."""
        if clips.motion is None:
            return None
        motion = torch.from_numpy(clips.motion).to(device, non_blocking=True)
        return crop_motion(motion, self._boxes(clips, device), self.motion_points, self.size)

    def mask_noise(self, first: int, rows: int, device: torch.device, draw: int = 0) -> Tensor:
        """Gumbel noise, float32 [rows, N], of clips `first` to `first + rows - 1`: the standard one
        of each token, and what the tokens of a time slice share.

        Args:
            draw: number of the token set among those drawn for a clip.
        """
        grid, seed = self.grid, self.seed
        noise = gumbel_rows(seed, Stream.MASK, first, rows, grid.tokens, lane=draw)
        if self.slice_noise:
            shared = gumbel_rows(seed, Stream.SLICES, first, rows, grid.time, lane=draw)
            noise += np.float32(self.slice_noise) * shared.repeat(grid.per_slice, axis=1)
        return torch.from_numpy(noise).to(device, non_blocking=True)

    def target_noise(self, first: int, rows: int, device: torch.device) -> Tensor | None:
        """Noise, float32 [rows, N], that chooses which masked tokens are predicted; None where all
        are. Arguments as `mask_noise`."""
        tokens = self.grid.tokens
        if self.targets == tokens - self.visible:
            return None
        noise = uniform_rows(self.seed, Stream.TARGET, first, rows, tokens)
        return torch.from_numpy(noise.astype(np.float32)).to(device)

    def _boxes(self, clips: Clips, device: torch.device) -> Tensor:
        boxes = crop_boxes(self.augment, clips.aspects, seed=self.seed, first=clips.first)
        return torch.from_numpy(boxes).to(device)
