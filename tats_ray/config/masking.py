"""Which tokens stay visible, and the sampler networks that learn it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tats_ray.config.section import Section

System = Literal["tats", "adamae", "mgm", "trackmae", "tube", "random", "frame"]


class SamplerSection(Section):
    """Actor and critic of TATS: trajectory attention -> linear (Rai, Min et al. 2025)."""

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


class AdaMAESection(Section):
    """AdaMAE's sampler, one transformer block as wide as the encoder, trained with the encoder."""

    heads: int = Field(8, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    coefficient: float = Field(1e-4, gt=0)  # of the sampling loss beside the reconstruction loss
    detach: bool = True  # false: the sampling loss also trains the patch embedding, as the code


class MGMSection(Section):
    """Motion-guided masking, reconstructed from the abstract: moving regions are masked."""

    rule: Literal["box", "topk"] = "box"
    smoothing: float = Field(0.5, ge=0, lt=1)  # share of the previous slice's centre in the box's
    still_pixels: float = Field(0.5, ge=0)  # clips that move less per frame get a simulated motion


class TrackMAESection(Section):
    """Motion-aware tube masking: positions in a fast and a slow half, both keep some visible."""

    motion_ratio: float = Field(0.5, ge=0, le=1)  # share of the visible tubes in the fast half


class MaskingSection(Section):
    system: System = "tats"
    ratio: float = Field(0.9, gt=0, lt=1)  # share of the tokens that is hidden
    warmup_steps: int = Field(0, ge=0)  # steps with random masks before PPO's sampler starts
    sampler: SamplerSection = SamplerSection()
    adamae: AdaMAESection = AdaMAESection()
    mgm: MGMSection = MGMSection()
    trackmae: TrackMAESection = TrackMAESection()

    @property
    def learned(self) -> bool:
        """Whether the system trains a sampler by rollouts, and so needs a PPO learner."""
        return self.system == "tats"

    @property
    def joint(self) -> bool:
        """Whether the system's sampler is trained inside the autoencoder's own step."""
        return self.system == "adamae"
