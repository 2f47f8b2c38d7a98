"""Token counts of a clip, in plain integers: what the config validates and the models use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenGrid:
    """Space-time grid of tubelet tokens, ordered frame-major (time, row, column)."""

    time: int
    rows: int
    columns: int

    @property
    def per_slice(self) -> int:
        """Tokens of one time slice."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Tokens of the clip (1568 at 16x224x224 with tubelets of 2x16x16)."""
        return self.time * self.per_slice


def cells_per_side(patch: int) -> int:
    """Cells that a token's pixels are averaged over where a sampler reads pixels."""
    return max(cells for cells in (1, 2, 3, 4) if patch % cells == 0)


def pixel_values(tubelet: int, patch: int) -> int:
    """Numbers of a token where a sampler reads pixels: the colours of its cells, their change from
    the time slice before and to the one behind."""
    return 3 * 3 * tubelet * cells_per_side(patch) ** 2


def visible_per_clip(tokens: int, ratio: float) -> int:
    """AdaMAE's rule, floor(N (1 - ratio)): 78 of 1568 at .95, 156 at .90, 235 at .85."""
    return int(tokens * (1 - ratio))


def visible_per_slice(per_slice: int, ratio: float) -> int:
    """VideoMAE's tube rule, P - floor(P ratio): 10 of 196 at .95, 20 at .90, 30 at .85."""
    return per_slice - int(per_slice * ratio)
