"""TATS (Rai, Min et al. 2025): visible tokens are drawn from a policy that PPO trains by rollouts.

What the paper leaves open is a decision (docs/systems.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from tats_ray.config.geometry import TokenGrid, visible_per_clip
from tats_ray.config.masking import Reads, RolloutSettings, TrainedBy
from tats_ray.config.settings import Settings

if TYPE_CHECKING:
    from tats_ray.models.samplers import TrajectorySampler


class SamplerSettings(Settings):
    """Actor and critic of TATS: trajectory attention -> linear."""

    width: int = Field(384, ge=8)
    """Width of the sampler's tokens."""
    heads: int = Field(6, ge=1)
    """Attention heads."""
    mlp: bool = False
    """Whether a feed-forward part follows the attention."""
    shared_trunk: bool = False
    """Whether actor and critic share their blocks, at half the cost."""

    @model_validator(mode="after")
    def heads_divide_width(self) -> SamplerSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        return self


class TATSSettings(RolloutSettings):
    sampler: SamplerSettings = SamplerSettings()


class TATS:
    """Reads patch tokens by trajectory attention."""

    Settings = TATSSettings
    reads: Reads = "tokens"
    trained_by: TrainedBy = "rollouts"

    def __init__(self, settings: TATSSettings, grid: TokenGrid) -> None:
        self.settings = settings
        self.grid = grid

    def count_visible(self) -> int:
        return visible_per_clip(self.grid.tokens, self.settings.ratio)

    def build_sampler(self, token_width: int) -> TrajectorySampler:
        from tats_ray.models.samplers import TrajectorySampler

        return TrajectorySampler(token_width, self.grid, **self.settings.sampler.model_dump())
