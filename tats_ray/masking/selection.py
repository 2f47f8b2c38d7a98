"""Drawing and holding sets of visible tokens."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Masker(Protocol):
    """Chooses the visible tokens of a batch. One class per system."""

    needs_tokens: bool  # whether `select` reads the patch tokens

    def select(self, noise: Tensor, tokens: Tensor | None) -> Tensor:
        """Draws visible tokens.

        Args:
            noise: float32 [B, N], standard Gumbel, one row per clip.
            tokens: [B, N, d] patch tokens, or None where `needs_tokens` is false.

        Returns:
            int64 [B, k], distinct, in the order drawn.
        """
        ...


def draw_without_replacement(log_probs: Tensor, noise: Tensor, count: int) -> Tensor:
    """Gumbel-top-k: `count` tokens from softmax(log_probs) without replacement, in drawn order.

    Args:
        log_probs: float32 [B, N] (any shift per row).
        noise: float32 [B, N], standard Gumbel.

    Returns:
        int64 [B, count]; the order follows Plackett-Luce (Kool et al. 2019).
    """
    return (log_probs + noise).topk(count, dim=1, sorted=True).indices
