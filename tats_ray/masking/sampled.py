"""TATS and AdaMAE: visible tokens drawn from a learned sampler's policy."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.masking import SamplerSection
from tats_ray.masking.selection import View, draw_without_replacement
from tats_ray.models.initialization import seeded
from tats_ray.models.sampler import Sampler, TrajectorySampler


class SampledMasker:
    """Draws from a sampler without training it."""

    reads: View = "tokens"

    def __init__(self, sampler: Sampler, visible: int) -> None:
        self.sampler = sampler
        self.visible = visible

    @torch.no_grad()
    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        assert view is not None, "a sampler reads the patch tokens"
        return draw_without_replacement(self.sampler.log_probs(view), noise, self.visible)


def build_sampler(
    section: SamplerSection, token_width: int, grid: TokenGrid, seed: int
) -> TrajectorySampler:
    """TATS's freshly initialised sampler, as `seeded`."""
    return seeded(
        seed + 1,  # not the autoencoder's numbers
        lambda: TrajectorySampler(
            token_width,
            grid,
            width=section.width,
            heads=section.heads,
            blocks=section.blocks,
            mlp=section.mlp,
            shared_trunk=section.shared_trunk,
        ),
    )
