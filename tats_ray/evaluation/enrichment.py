"""Motion enrichment: how much more often than chance a masker keeps moving things visible.

Enrichment = mean moving cover of the visible tokens / mean moving cover of all tokens, where the
cover of a token is the share of its pixels that belongs to moving objects. 1.0 is chance. The same
number for static distractors separates motion from mere contrast.
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import reduce
from torch import Tensor


@dataclass(frozen=True)
class Enrichment:
    """Pooled over clips; nan where no clip has such an object."""

    moving: float
    static: float


def token_cover(mask: Tensor, tubelet: int, patch: int) -> Tensor:
    """Share of each token's pixels inside the mask: bool [B, T, H, W] -> float32 [B, N]."""
    return reduce(
        mask.float(), "b (t u) (h p) (w q) -> b (t h w)", "mean", u=tubelet, p=patch, q=patch
    )


def enrichment(visible: Tensor, cover: Tensor) -> float:
    """Enrichment of drawn tokens.

    Args:
        visible: int64 [B, k].
        cover: float32 [B, N].
    """
    return (cover.gather(1, visible).mean() / cover.mean()).item()
