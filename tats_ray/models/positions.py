"""Fixed position codes."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.config.geometry import TokenGrid


def position_table(kind: str, grid: TokenGrid, width: int) -> Tensor:
    """Codes of all tokens, float32 [N, width], by `model.positions`."""
    if kind == "sinusoid_3d":
        return sinusoid_3d(grid, width)
    return sinusoid_1d(torch.arange(grid.tokens), width)


def sinusoid_1d(places: Tensor, width: int) -> Tensor:
    """Sinusoids of one coordinate; over the flat token index the code of VideoMAE and AdaMAE.

    Returns:
        float32 [len(places), width]; even columns are sines, odd ones cosines.
    """
    column = torch.arange(width, dtype=torch.float64)
    rate = torch.pow(10000.0, -2.0 * torch.div(column, 2, rounding_mode="floor") / width)
    angle = places.double()[:, None] * rate
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def sinusoid_3d(grid: TokenGrid, width: int) -> Tensor:
    """Time, row and column each in a third of the columns (AdaMAE's paper): what is at the same
    place at another time is near, so copying over time is easy to learn."""
    third = width // 6 * 2
    widths = (width - 2 * third, third, third)
    axes = torch.meshgrid(
        torch.arange(grid.time), torch.arange(grid.rows), torch.arange(grid.columns), indexing="ij"
    )
    parts = [sinusoid_1d(axis.flatten(), w) for axis, w in zip(axes, widths, strict=True)]
    return torch.cat(parts, dim=1)
