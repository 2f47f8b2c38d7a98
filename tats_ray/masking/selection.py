"""Drawing and holding sets of visible tokens."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

View = Literal["nothing", "tokens", "motion"]


class Masker(Protocol):
    """Chooses the visible tokens of a batch. One class per system."""

    reads: View  # what `select` looks at beside the noise

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        """Draws visible tokens.

        Args:
            noise: float32 [B, N], standard Gumbel, one row per clip.
            view: by `reads`: None, patch tokens [B, N, d], or motion [B, T', 2 rows, 2 columns, 2]
                in pixels of the model input, x before y.

        Returns:
            int64 [B, k], distinct, in the order drawn where there is one.
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


def uniform_from_gumbel(noise: Tensor) -> Tensor:
    """Uniform numbers in (0, 1) out of standard Gumbel ones, of the same shape."""
    return (-(-noise).exp()).exp()
