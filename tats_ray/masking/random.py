"""MAE-ST's space-time agnostic random masking."""

from __future__ import annotations

from torch import Tensor


class RandomMasker:
    """Every set of k tokens is equally likely."""

    needs_tokens = False

    def __init__(self, visible: int) -> None:
        self.visible = visible

    def select(self, noise: Tensor, tokens: Tensor | None = None) -> Tensor:
        return noise.topk(self.visible, dim=1, sorted=True).indices
