"""Frame masking, AdaMAE's baseline: whole time slices are visible, all others are masked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.masking import MaskingSettings, Reads, TrainedBy
from tats_ray.masking.selection import draw_evenly

if TYPE_CHECKING:
    from torch import Tensor


class Frame:
    """Draws time slices and shows every token of theirs: 1 of 8 slices at .875."""

    Settings = MaskingSettings
    reads: Reads = "nothing"
    trained_by: TrainedBy = "nothing"

    def __init__(self, settings: MaskingSettings, grid: TokenGrid) -> None:
        self.grid = grid
        self.slices = grid.time - int(grid.time * settings.ratio)

    def count_visible(self) -> int:
        return self.slices * self.grid.per_slice

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        import torch

        drawn = draw_evenly(noise[:, : self.grid.time], self.slices)
        places = torch.arange(self.grid.per_slice, device=noise.device)
        return (drawn[:, :, None] * self.grid.per_slice + places).flatten(1)
