"""Which tokens stay visible, and the sampler network that learns it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tats_ray.config.section import Section

LEARNED_SYSTEMS = frozenset({"tats"})


class SamplerSection(Section):
    """Actor and critic of TATS: trajectory attention -> linear (METHODS 1.4)."""

    width: int = Field(384, ge=8)
    heads: int = Field(6, ge=1)
    blocks: int = Field(1, ge=1)
    mlp: bool = False  # a feed-forward part behind the attention
    shared_trunk: bool = False  # actor and critic on one trunk: half the cost

    @model_validator(mode="after")
    def heads_divide_width(self) -> SamplerSection:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        return self


class MaskingSection(Section):
    system: Literal["tats", "random", "tube"] = "tats"
    ratio: float = Field(0.9, gt=0, lt=1)  # share of the tokens that is hidden
    warmup_steps: int = Field(0, ge=0)  # steps with random masks before a learned sampler starts
    sampler: SamplerSection = SamplerSection()

    @property
    def learned(self) -> bool:
        """Whether the system trains a sampler, and so needs rollouts and a PPO learner."""
        return self.system in LEARNED_SYSTEMS
