"""TrackMAE's motion-aware tube masking (Vandeghen et al. 2026): two bins by speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tats_ray.config.geometry import TokenGrid, visible_per_slice
from tats_ray.config.masking import MaskingSettings, Reads, TrainedBy
from tats_ray.masking.selection import draw_evenly, token_speed, tube

if TYPE_CHECKING:
    from torch import Tensor


class TrackMAESettings(MaskingSettings):
    motion_ratio: float = Field(0.5, ge=0, le=1)
    """Share of the visible tubes that is drawn from the fast half."""

    def check(self, grid: TokenGrid, token_width: int) -> None:
        tubes = visible_per_slice(grid.per_slice, self.ratio)
        fast, half = int(self.motion_ratio * tubes), _fast_half(grid)
        if fast > half or tubes - fast > grid.per_slice - half:
            raise ValueError(
                f"masking.motion_ratio {self.motion_ratio} draws more of the {tubes} visible tubes "
                f"from one half of the {grid.per_slice} places than it has: set "
                "masking.motion_ratio=0.5"
            )


class TrackMAE:
    """Sorts the places of a clip by the mean speed of the points that start there; draws
    `motion_ratio` of the visible tubes from the fast half, the others from the slow half.

    At .5 every place is equally likely to be visible: the draw is stratified, not biased.
    """

    Settings = TrackMAESettings
    reads: Reads = "tracks"
    trained_by: TrainedBy = "nothing"

    def __init__(self, settings: TrackMAESettings, grid: TokenGrid) -> None:
        self.grid = grid
        self.tubes = visible_per_slice(grid.per_slice, settings.ratio)
        self.fast = int(settings.motion_ratio * self.tubes)

    def count_visible(self) -> int:
        return self.grid.time * self.tubes

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        import torch

        assert view is not None, "TrackMAE reads motion"
        # The last slice repeats the one before: T' frames of a tracker have T' - 1 displacements.
        speed = token_speed(view[:, : max(1, self.grid.time - 1)]).mean(dim=1)
        order = speed.argsort(dim=1, descending=True, stable=True)
        half = _fast_half(self.grid)
        # The draw is by place in the order, so that a bin's members are equally likely.
        drawn_fast = draw_evenly(noise[:, :half], self.fast)
        slow = noise[:, half : self.grid.per_slice]
        drawn_slow = draw_evenly(slow, self.tubes - self.fast) + half
        return tube(order.gather(1, torch.cat([drawn_fast, drawn_slow], dim=1)), self.grid)


def _fast_half(grid: TokenGrid) -> int:
    """Places of the fast half: the larger one where their number is odd, 25 of 49."""
    return (grid.per_slice + 1) // 2
