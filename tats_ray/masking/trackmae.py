"""TrackMAE's motion-aware tube masking (Vandeghen et al. 2026): two bins by speed."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.config.geometry import TokenGrid
from tats_ray.masking.selection import View
from tats_ray.masking.slices import token_speed, tube


class TrackMAEMasker:
    """Sorts the places of a clip by the mean speed of the points that start there; draws
    `motion_ratio` of the visible tubes from the fast half, the others from the slow half.

    At .5 every place is equally likely to be visible: the draw is stratified, not biased.
    """

    reads: View = "motion"

    def __init__(self, grid: TokenGrid, visible: int, motion_ratio: float) -> None:
        self.grid = grid
        self.visible_per_slice = visible // grid.time
        self.fast = int(motion_ratio * self.visible_per_slice)

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        assert view is not None, "TrackMAE reads motion"
        half = self.grid.per_slice // 2
        order = token_speed(view).mean(dim=1).argsort(dim=1, descending=True, stable=True)
        # The draw is by place in the order, so that a bin's members are equally likely.
        drawn_fast = noise[:, :half].topk(self.fast, dim=1).indices
        slow = noise[:, half : self.grid.per_slice]
        drawn_slow = slow.topk(self.visible_per_slice - self.fast, dim=1).indices + half
        return tube(order.gather(1, torch.cat([drawn_fast, drawn_slow], dim=1)), self.grid)
