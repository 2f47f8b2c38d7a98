"""VideoMAE's tube masking: one spatial mask, the same in every time slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tats_ray.config.geometry import TokenGrid, visible_per_slice
from tats_ray.config.masking import MaskingSettings, Reads, TrainedBy
from tats_ray.masking.selection import draw_evenly, tube

if TYPE_CHECKING:
    from torch import Tensor


class Tube:
    """Draws positions and shows them in each of the grid's time slices."""

    Settings = MaskingSettings
    reads: Reads = "nothing"
    trained_by: TrainedBy = "nothing"

    def __init__(self, settings: MaskingSettings, grid: TokenGrid) -> None:
        self.grid = grid
        self.per_slice = visible_per_slice(grid.per_slice, settings.ratio)

    def count_visible(self) -> int:
        return self.grid.time * self.per_slice

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        first_slice = noise[:, : self.grid.per_slice]
        return tube(draw_evenly(first_slice, self.per_slice), self.grid)
