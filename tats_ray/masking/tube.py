"""VideoMAE's tube masking: one spatial mask, the same in every time slice."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.config.geometry import TokenGrid


class TubeMasker:
    """Draws the same positions visible in each of the grid's time slices."""

    needs_tokens = False

    def __init__(self, grid: TokenGrid, visible: int) -> None:
        self.grid = grid
        self.visible_per_slice = visible // grid.time

    def select(self, noise: Tensor, tokens: Tensor | None = None) -> Tensor:
        first_slice = noise[:, : self.grid.per_slice]
        place = first_slice.topk(self.visible_per_slice, dim=1, sorted=True).indices
        offsets = torch.arange(self.grid.time, device=noise.device) * self.grid.per_slice
        return (offsets[None, :, None] + place[:, None, :]).flatten(1)
