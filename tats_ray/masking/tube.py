"""VideoMAE's tube masking: one spatial mask, the same in every time slice."""

from __future__ import annotations

from torch import Tensor

from tats_ray.config.geometry import TokenGrid
from tats_ray.masking.selection import View
from tats_ray.masking.slices import tube


class TubeMasker:
    """Draws the same positions visible in each of the grid's time slices."""

    reads: View = "nothing"

    def __init__(self, grid: TokenGrid, visible: int) -> None:
        self.grid = grid
        self.visible_per_slice = visible // grid.time

    def select(self, noise: Tensor, view: Tensor | None = None) -> Tensor:
        first_slice = noise[:, : self.grid.per_slice]
        return tube(first_slice.topk(self.visible_per_slice, dim=1).indices, self.grid)
