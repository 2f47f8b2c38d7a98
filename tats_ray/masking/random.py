"""MAE-ST's space-time agnostic random masking."""

from __future__ import annotations

from torch import Tensor

from tats_ray.masking.selection import View


class RandomMasker:
    """Every set of k tokens is equally likely."""

    reads: View = "nothing"

    def __init__(self, visible: int) -> None:
        self.visible = visible

    def select(self, noise: Tensor, view: Tensor | None = None) -> Tensor:
        return noise.topk(self.visible, dim=1, sorted=True).indices
