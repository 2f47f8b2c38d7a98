"""Frame masking, AdaMAE's baseline: whole time slices are visible, all others are masked."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.config.geometry import TokenGrid
from tats_ray.masking.selection import View


class FrameMasker:
    """Draws time slices and shows every token of theirs."""

    reads: View = "nothing"

    def __init__(self, grid: TokenGrid, visible: int) -> None:
        self.grid = grid
        self.slices = visible // grid.per_slice

    def select(self, noise: Tensor, view: Tensor | None = None) -> Tensor:
        drawn = noise[:, : self.grid.time].topk(self.slices, dim=1, sorted=True).indices
        places = torch.arange(self.grid.per_slice, device=noise.device)
        return (drawn[:, :, None] * self.grid.per_slice + places).flatten(1)
