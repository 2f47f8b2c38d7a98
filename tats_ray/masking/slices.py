"""From places within time slices to token indices, for maskers that count per slice."""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor

from tats_ray.config.geometry import TokenGrid


def tube(places: Tensor, grid: TokenGrid) -> Tensor:
    """The same places in every time slice: int64 [B, m] -> [B, T' * m]."""
    return tokens_of_slices(places[:, None, :].expand(-1, grid.time, -1), grid)


def tokens_of_slices(places: Tensor, grid: TokenGrid) -> Tensor:
    """Places of each time slice: int64 [B, T', m] -> token indices [B, T' * m]."""
    offsets = torch.arange(grid.time, device=places.device) * grid.per_slice
    return (places + offsets[None, :, None]).flatten(1)


def token_speed(motion: Tensor) -> Tensor:
    """Mean length of the 2 x 2 displacements of each token.

    Args:
        motion: float [B, T', 2 rows, 2 columns, 2].

    Returns:
        float [B, T', rows * columns], in the unit of `motion`.
    """
    return reduce(motion.norm(dim=-1), "b t (r p) (c q) -> b t (r c)", "mean", p=2, q=2)
