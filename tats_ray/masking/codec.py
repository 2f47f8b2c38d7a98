"""Tokens that a compressed stream says are moving: a free baseline without learning.

OneVision-Encoder (2026) keeps the patches with the largest residuals and motion vectors of the
stream. FFmpeg gives out a frame's vectors but not its residuals, so this system knows half of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tats_ray.config.geometry import TokenGrid, visible_per_clip
from tats_ray.config.masking import MaskingSettings, Reads, TrainedBy
from tats_ray.masking.selection import draw_from_top, token_speed

if TYPE_CHECKING:
    from torch import Tensor


class Codec:
    """Shows the tokens of the clip whose vectors differ most from the camera's motion, which is the
    median vector of each time slice; chance decides between tokens that move alike."""

    Settings = MaskingSettings
    reads: Reads = "field"
    trained_by: TrainedBy = "nothing"

    def __init__(self, settings: MaskingSettings, grid: TokenGrid) -> None:
        self.visible = visible_per_clip(grid.tokens, settings.ratio)

    def count_visible(self) -> int:
        return self.visible

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        assert view is not None, "codec reads motion"
        camera = view.flatten(2, 3).median(dim=2).values  # [B, T', 2]
        speed = token_speed(view - camera[:, :, None, None]).flatten(1)
        return draw_from_top(speed, noise, self.visible, self.visible)
