"""The masked autoencoder and its sizes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tats_ray.config.settings import Settings

# Encoder of ViT and decoder of VideoMAE per size: the decoder is half as wide as the encoder.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "width": 192, "depth": 12, "heads": 3, "decoder": {"width": 96, "depth": 2, "heads": 3},
    },
    "small": {
        "width": 384, "depth": 12, "heads": 6, "decoder": {"width": 192, "depth": 4, "heads": 3},
    },
    "base": {
        "width": 768, "depth": 12, "heads": 12, "decoder": {"width": 384, "depth": 4, "heads": 6},
    },
    "large": {
        "width": 1024, "depth": 24, "heads": 16, "decoder": {"width": 512, "depth": 12, "heads": 8},
    },
}  # fmt: skip


class DecoderSettings(Settings):
    width: int = Field(384, ge=8)
    """Width of tokens in the decoder."""
    depth: int = Field(4, ge=1)
    """Blocks of the decoder."""
    heads: int = Field(6, ge=1)
    """Attention heads of the decoder."""
    attention: Literal["self", "cross"] = "self"
    """Among all tokens, or from each predicted one to the visible ones alone."""
    target_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the masked tokens that is predicted."""


class TargetSettings(Settings):
    """Pixel target of each token: its own pixels, normalised over the token."""

    weight: float = Field(1.0, ge=0)
    """Weight in the joint loss; 0: pixels are no target."""
    normalize: Literal["channel", "joint", "none"] = "channel"
    """Per token and channel (VideoMAE), over all values of a token (MAE-ST), or raw pixels."""
    epsilon: float = Field(1e-6, ge=0)
    """Added to the deviation, with `joint` to the variance; .1 and 0.01 mute flat patches."""
    frames: int | None = Field(None, ge=1)
    """Frames of the clip that are predicted; empty: all."""


class MotionTargetSettings(Settings):
    """TrackMAE's second decoder: the displacements of 2 x 2 points of each token, 8 numbers."""

    weight: float = Field(0.0, ge=0)
    """Weight in the joint loss; 0: motion is no target."""
    normalize: Literal["patch", "none", "clip"] = "patch"
    """Per token (TrackMAE's code), pixels, or by the clip's scale."""


class FeatureTargetSettings(Settings):
    """Features of a frozen image encoder instead of pixels, standardised over the clip."""

    encoder: str | None = None
    """Name of a timm vision transformer, such as vit_base_patch16_224.dino; empty: features are
    no target."""
    weights: str | None = None
    """safetensors file; empty: timm's pretrained weights from the hub."""


class ModelSettings(Settings):
    """`size` fills whatever of width, depth, heads and decoder is not given."""

    size: Literal["tiny", "small", "base", "large"] = "base"
    """Preset that fills what is not given of width, depth, heads and decoder."""
    patch: int = Field(16, ge=1)
    """Side of a token, pixels."""
    tubelet: int = Field(2, ge=1)
    """Frames of a token."""
    width: int = Field(768, ge=8)
    """Width of tokens in the encoder."""
    depth: int = Field(12, ge=1)
    """Blocks of the encoder."""
    heads: int = Field(12, ge=1)
    """Attention heads of the encoder."""
    positions: Literal["sinusoid_1d", "sinusoid_3d"] = "sinusoid_1d"
    """Fixed positions: one sinusoid over the sequence (the codes), or over time, row and column
    (AdaMAE's paper)."""
    decoder: DecoderSettings = DecoderSettings()
    target: TargetSettings = TargetSettings()
    motion_target: MotionTargetSettings = MotionTargetSettings()
    feature_target: FeatureTargetSettings = FeatureTargetSettings()

    @model_validator(mode="before")
    @classmethod
    def fill_from_size(cls, given: Any) -> Any:
        # A list, because what is given may be anything, also what has no hash.
        if not isinstance(given, dict) or given.get("size", "base") not in list(SIZES):
            return given
        preset = SIZES[given.get("size", "base")]
        decoder = given.get("decoder", {})
        if isinstance(decoder, dict):
            decoder = {**preset["decoder"], **decoder}
        return {**preset, **given, "decoder": decoder}

    @model_validator(mode="after")
    def heads_divide_width(self) -> ModelSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        if self.decoder.width % self.decoder.heads:
            raise ValueError(
                f"decoder.width {self.decoder.width} is not divisible by "
                f"decoder.heads {self.decoder.heads}"
            )
        return self

    @model_validator(mode="after")
    def something_is_predicted(self) -> ModelSettings:
        if not (self.target.weight or self.motion_target.weight or self.feature_target.encoder):
            raise ValueError(
                "nothing is predicted: give target.weight, motion_target.weight or "
                "feature_target.encoder"
            )
        return self
