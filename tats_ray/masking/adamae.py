"""AdaMAE (Bandara et al. 2023): visible tokens are drawn from a policy that the autoencoder's own
step trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tats_ray.config.geometry import TokenGrid, visible_per_clip
from tats_ray.config.masking import Reads, StepSettings, TrainedBy

if TYPE_CHECKING:
    from torch import Tensor

    from tats_ray.models.samplers import AdaMAESampler


class AdaMAESettings(StepSettings):
    """The sampler is one transformer block as wide as the encoder; the code does not detach."""

    heads: int = Field(8, ge=1)
    """Attention heads of the sampler."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of the sampler."""

    def check(self, grid: TokenGrid, token_width: int) -> None:
        if token_width % self.heads:
            raise ValueError(
                f"masking.heads {self.heads} does not divide model.width {token_width}"
            )


class AdaMAE:
    """Reads patch tokens by self-attention."""

    Settings = AdaMAESettings
    reads: Reads = "tokens"
    trained_by: TrainedBy = "step"

    def __init__(self, settings: AdaMAESettings, grid: TokenGrid) -> None:
        self.settings = settings
        self.grid = grid

    def count_visible(self) -> int:
        return visible_per_clip(self.grid.tokens, self.settings.ratio)

    def build_sampler(self, token_width: int) -> AdaMAESampler:
        from tats_ray.models.samplers import AdaMAESampler

        heads, dropout = self.settings.heads, self.settings.dropout
        return AdaMAESampler(token_width, self.grid, heads=heads, dropout=dropout)

    def loss(self, log_probs: Tensor, targets: Tensor, error: Tensor) -> Tensor:
        from tats_ray.models.samplers import sampling_loss

        return sampling_loss(log_probs, targets, error)
