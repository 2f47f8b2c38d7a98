"""TrackMAE's motion target: how the points of each token move (Vandeghen et al. 2026, code)."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

POINTS = 4  # per token, 2 x 2
VALUES = 2 * POINTS  # (x, y) of each


def motion_target(motion: Tensor, normalize: str) -> Tensor:
    """Displacements of the points that start in each token's place.

    `patch` subtracts the token's mean motion and divides by its deviation, per axis, as TrackMAE's
    code does; `none` keeps pixels; `clip` divides by the deviation over the whole clip.

    Args:
        motion: float [B, T', 2 rows, 2 columns, 2] in pixels of the model input.

    Returns:
        float32 [B, N, 8].
    """
    points = rearrange(motion.float(), "b t (r p) (c q) d -> b (t r c) (p q) d", p=2, q=2)
    if normalize == "patch":
        points = points - points.mean(dim=2, keepdim=True)
        points = points / (points.std(dim=2, keepdim=True) + 1e-6)
    elif normalize == "clip":
        points = points / (points.flatten(1).std(dim=1)[:, None, None, None] + 1e-6)
    return points.flatten(2)
