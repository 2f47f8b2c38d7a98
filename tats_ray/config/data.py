"""Where clips come from and how they are decoded and augmented."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tats_ray.config.motion import MotionSettings
from tats_ray.config.settings import Settings


class SyntheticSettings(Settings):
    """The generated set, used when `data.manifest` is empty. Lengths are pixels and frames."""

    clips: int = Field(384, ge=1)
    held_out_clips: int = Field(64, ge=1)
    classes: Literal["paths", "directions"] = "paths"  # kinds of path | directions of straight ones
    frames: int = Field(32, ge=2)
    size: int = Field(64, ge=16, multiple_of=2)
    moving_objects: int = Field(2, ge=1)
    object_size: list[float] = Field([0.16, 0.3], min_length=2, max_length=2)  # share of the frame
    speed: list[float] = Field([0.02, 0.05], min_length=2, max_length=2)  # frame widths per frame
    background_contrast: float = Field(0.1, ge=0, le=0.5)
    panning_share: float = Field(0.3, ge=0, le=1)


class AugmentSettings(Settings):
    """Geometric augmentation, batched on the training device; one box and flip per clip."""

    crop: Literal["multi_scale", "random_resized", "center", "full"] = "multi_scale"
    area: list[float] = Field([0.5, 1.0], min_length=2, max_length=2)  # random_resized only
    aspect: list[float] = Field([0.75, 1.3333], min_length=2, max_length=2)
    flip: float = Field(0.0, ge=0, le=1)


class ClipSettings(Settings):
    """Clips of a manifest, as every training job reads them."""

    manifest: str | None = None  # Parquet written by jobs/prepare_data.py; empty: synthetic
    synthetic: SyntheticSettings = SyntheticSettings()

    frames: int = Field(16, ge=1)
    stride: int = Field(4, ge=1)
    size: int = Field(224, ge=8)  # side of the square model input
    stored_height: int = Field(256, ge=8)  # size that decoded frames are stored at; the box of the
    stored_width: int = Field(340, ge=8)  # augmentation undoes the change of aspect
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    decode_seconds: float = Field(20.0, gt=0)  # time limit per file
    broken_share: float = Field(0.05, ge=0, le=1)  # the run stops above this share
    block_clips: int = Field(8, ge=1)  # clips per decode task and object-store block
    prefetch_blocks: int = Field(32, ge=1)  # at most twice as many decoded blocks wait in memory
    repeats: int = Field(1, ge=1)  # clips out of one decoding
    augment: AugmentSettings = AugmentSettings()


class DataSettings(ClipSettings):
    """Clips to pre-train on; `repeats` have random starts each (MAE-ST: 4)."""

    held_out_manifest: str | None = (
        None  # clips for pictures and enrichment; empty: the training set
    )
    motion: MotionSettings = MotionSettings()
