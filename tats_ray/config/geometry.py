"""Token counts of a clip, in plain integers: what the config validates and the models use."""

from __future__ import annotations

from dataclasses import dataclass

PER_SLICE_SYSTEMS = frozenset({"tube", "mgm", "trackmae"})  # as many tokens in every time slice


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


def visible_per_clip(tokens: int, ratio: float) -> int:
    """AdaMAE's rule, floor(N (1 - ratio)): 78 of 1568 at .95, 156 at .90, 235 at .85."""
    return int(tokens * (1 - ratio))


def visible_per_slice(per_slice: int, ratio: float) -> int:
    """VideoMAE's tube rule, P - floor(P ratio): 10 of 196 at .95, 20 at .90, 30 at .85."""
    return per_slice - int(per_slice * ratio)


def visible_frames(frames: int, ratio: float) -> int:
    """Time slices that frame masking keeps whole: 1 of 8 at .875, AdaMAE's baseline."""
    return frames - int(frames * ratio)


def visible_tokens(system: str, grid: TokenGrid, ratio: float) -> int:
    """Visible tokens of one clip under the masking system's own counting rule."""
    if system in PER_SLICE_SYSTEMS:
        return grid.time * visible_per_slice(grid.per_slice, ratio)
    if system == "frame":
        return visible_frames(grid.time, ratio) * grid.per_slice
    return visible_per_clip(grid.tokens, ratio)
