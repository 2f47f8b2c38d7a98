"""MAE-ST's space-time agnostic random masking: every set of k tokens is equally likely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tats_ray.config.geometry import TokenGrid, visible_per_clip
from tats_ray.config.masking import MaskingSettings, Reads, TrainedBy
from tats_ray.masking.selection import draw_evenly

if TYPE_CHECKING:
    from torch import Tensor


class Random:
    """Draws tokens of the clip."""

    Settings = MaskingSettings
    reads: Reads = "nothing"
    trained_by: TrainedBy = "nothing"

    def __init__(self, settings: MaskingSettings, grid: TokenGrid) -> None:
        self.visible = visible_per_clip(grid.tokens, settings.ratio)

    def count_visible(self) -> int:
        return self.visible

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        return draw_evenly(noise, self.visible)
