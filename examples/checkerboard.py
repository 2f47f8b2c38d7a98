"""A masking system of your own: visible tokens lie on the fields of one colour of a checkerboard,
which changes from slice to slice.

    tats-ray pretrain --config recipe:demo run.name=board \
        masking.system=examples.checkerboard:Checkerboard masking.field=2

The configuration imports this module, so torch is imported where it is used. Every process of a
run imports it too: on a cluster it must be installed on every machine, as the package itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tats_ray.config.geometry import TokenGrid, visible_per_slice
from tats_ray.config.masking import MaskingSettings, Reads, TrainedBy
from tats_ray.masking.selection import tokens_of_slices

if TYPE_CHECKING:
    from torch import Tensor


class CheckerboardSettings(MaskingSettings):
    field: int = Field(1, ge=1)
    """Tokens per side of a field."""

    def check(self, grid: TokenGrid, token_width: int) -> None:
        """Each colour must hold the visible tokens of a slice."""
        second = sum(_colours(grid, self.field))
        if visible_per_slice(grid.per_slice, self.ratio) > min(second, grid.per_slice - second):
            raise ValueError("masking.ratio: one colour has fewer fields; raise masking.ratio")


class Checkerboard:
    Settings = CheckerboardSettings
    reads: Reads = "nothing"  # or "tokens", "field", "tracks": what `select` gets as `view`
    trained_by: TrainedBy = "nothing"

    def __init__(self, settings: CheckerboardSettings, grid: TokenGrid) -> None:
        self.grid = grid
        self.field = settings.field
        self.per_slice = visible_per_slice(grid.per_slice, settings.ratio)

    def count_visible(self) -> int:
        return self.grid.time * self.per_slice

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        import torch

        time = torch.arange(self.grid.time, device=noise.device)
        colours = torch.tensor(_colours(self.grid, self.field), device=noise.device)
        off = colours != time[:, None] % 2  # [T', P]
        score = noise.view(-1, *off.shape).masked_fill(off, -torch.inf)
        return tokens_of_slices(score.topk(self.per_slice, dim=2).indices, self.grid)


def _colours(grid: TokenGrid, field: int) -> list[int]:
    return [(r // field + c // field) % 2 for r in range(grid.rows) for c in range(grid.columns)]
