"""Motion-guided masking, a reconstruction of MGM (Fan et al. 2023): the moving region is masked.

The paper's body is not known to this project; box and top-k rules, smoothing and the treatment of
still clips are decisions (docs/systems.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tats_ray.config.geometry import TokenGrid, visible_per_slice
from tats_ray.config.masking import MaskingSettings, Reads, TrainedBy
from tats_ray.masking.selection import token_speed, tokens_of_slices

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class MGMSettings(MaskingSettings):
    rule: Literal["box", "topk"] = "box"
    """What is masked in each slice: a box around the motion, or the fastest tokens."""
    smoothing: float = Field(0.5, ge=0, lt=1)
    """Share of the former slice's centre in that of the box."""
    still_pixels: float = Field(0.5, ge=0)
    """Clips that move less per frame get a box on a random path."""


class MGM:
    """Masks as many tokens of every time slice: a box around the motion, or the fastest ones.

    A clip that hardly moves gets a box with a random path at constant speed instead, as MGM's
    simulated-motion masking.
    """

    Settings = MGMSettings
    reads: Reads = "field"
    trained_by: TrainedBy = "nothing"

    def __init__(self, settings: MGMSettings, grid: TokenGrid) -> None:
        self.settings = settings
        self.grid = grid
        self.visible_per_slice = visible_per_slice(grid.per_slice, settings.ratio)
        self.side = math.sqrt(grid.per_slice - self.visible_per_slice)

    def count_visible(self) -> int:
        return self.grid.time * self.visible_per_slice

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        assert view is not None, "MGM reads motion"
        speed = token_speed(view)
        slices = noise.view(len(noise), self.grid.time, self.grid.per_slice)
        simulated = self._outside_box(self._random_path(slices))
        if self.settings.rule == "box":
            guided = self._outside_box(self._motion_path(speed))
        else:
            guided = -speed
        still = speed.amax(dim=(1, 2)) < self.settings.still_pixels
        score = simulated.where(still[:, None, None], guided)
        shuffle = slices.argsort(dim=2)  # equal scores come in random order
        order = score.gather(2, shuffle).argsort(dim=2, descending=True, stable=True)
        places = shuffle.gather(2, order[:, :, : self.visible_per_slice])
        return tokens_of_slices(places, self.grid)

    def _motion_path(self, speed: Tensor) -> Tensor:
        """Smoothed centre of the motion, (row, column) float [B, T', 2]."""
        import torch

        centres = self._centres(speed.device)
        total = speed.sum(dim=2, keepdim=True)
        # A slice at rest leaves the box where it was.
        mean = (speed @ centres) / total.clamp_min(1e-6)
        path = [mean[:, 0].where(total[:, 0] > 0, centres.mean(dim=0))]
        for time in range(1, self.grid.time):
            pull = (total[:, time] > 0) * (1 - self.settings.smoothing)
            path.append(path[-1] + pull * (mean[:, time] - path[-1]))
        return torch.stack(path, dim=1)

    def _random_path(self, slices: Tensor) -> Tensor:
        """A straight path between two random places, (row, column) float [B, T', 2]."""
        import torch

        ends = (-(-slices[:, 0, :4]).exp()).exp()  # uniform numbers out of Gumbel's
        sides = torch.tensor([self.grid.rows, self.grid.columns], device=slices.device)
        start, stop = ends[:, None, :2] * sides, ends[:, None, 2:] * sides
        share = torch.linspace(0, 1, self.grid.time, device=slices.device)[None, :, None]
        return start + share * (stop - start)

    def _outside_box(self, path: Tensor) -> Tensor:
        """How far each token lies from the middle of the box, float [B, T', P]: the nearest ones
        fill the box, whose shape follows from the maximum norm."""
        import torch

        sides = torch.tensor([self.grid.rows, self.grid.columns], device=path.device)
        half = torch.minimum(torch.full_like(path[:1, :1], self.side), sides) / 2
        middle = torch.minimum(torch.maximum(path, half), sides - half)
        away = (self._centres(path.device) - middle[:, :, None, :]).abs() / half[:, :, None, :]
        return away.amax(dim=-1)

    def _centres(self, device: torch.device) -> Tensor:
        """Middles of the tokens, (row, column) float [P, 2]."""
        import torch

        rows = torch.arange(self.grid.rows, device=device) + 0.5
        columns = torch.arange(self.grid.columns, device=device) + 0.5
        return torch.cartesian_prod(rows, columns)
