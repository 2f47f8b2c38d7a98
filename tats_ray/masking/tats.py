"""TATS: visible tokens drawn from the trajectory-aware sampler's policy."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.masking.selection import draw_without_replacement
from tats_ray.models.sampler import TrajectorySampler


class TATSMasker:
    """Draws from the sampler without training it; training is PPO's (rl/)."""

    needs_tokens = True

    def __init__(self, sampler: TrajectorySampler, visible: int) -> None:
        self.sampler = sampler
        self.visible = visible

    @torch.no_grad()
    def select(self, noise: Tensor, tokens: Tensor | None) -> Tensor:
        assert tokens is not None, "TATS reads the patch tokens"
        return draw_without_replacement(self.sampler.log_probs(tokens), noise, self.visible)
