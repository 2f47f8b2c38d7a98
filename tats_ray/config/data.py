"""Where clips and their motion come from and how they are decoded and augmented."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tats_ray.config.settings import Settings

Crop = Literal["multi_scale", "random_resized", "center", "full"]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]

Form = Literal["none", "field", "tracks"]
# Displacements at every place of every frame. All sources can follow points from frame 0 instead.
FIELD_SOURCES = frozenset({"vectors", "dense_flow"})


class SyntheticSettings(Settings):
    """The generated set, used where `data.manifest` is empty."""

    clips: int = Field(384, ge=1)
    """Training clips."""
    held_out_clips: int = Field(64, ge=1)
    """Held-out clips."""
    classes: Literal["paths", "directions"] = "paths"
    """What a label tells: the kind of path, or the direction of a line."""
    frames: int = Field(32, ge=2)
    """Frames of a video."""
    size: int = Field(64, ge=16, multiple_of=2)
    """Side of a frame, pixels."""
    moving_objects: int = Field(2, ge=1)
    """Moving objects; each has a static distractor of its texture."""
    object_size: Range = Field([0.16, 0.3])
    """Smallest and largest object, as a share of the frame."""
    speed: Range = Field([0.02, 0.05])
    """Slowest and fastest, frame widths per frame."""
    background_contrast: float = Field(0.1, ge=0, le=0.5)
    """Contrast of the background's texture."""
    panning_share: float = Field(0.3, ge=0, le=1)
    """Share of clips with a panning camera."""


class AugmentSettings(Settings):
    """Geometric augmentation, batched on the training device; one box and flip per clip."""

    crop: Crop = "multi_scale"
    """Which box of the frames is taken."""
    area: Range = Field([0.5, 1.0])
    """Smallest and largest box, share of the area; random_resized only."""
    aspect: Range = Field([0.75, 1.3333])
    """Range of width / height of the box; random_resized only."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip."""


class MotionSettings(Settings):
    """Motion that comes with a clip: what masking systems read and the motion target predicts.

    It is computed where clips are decoded, or read from a cache that tats-ray prepare made.
    """

    source: Literal["auto", "none", "vectors", "lucas_kanade", "dense_flow", "cotracker3"] = "auto"
    """How motion is found; auto: `vectors` where a masking system reads a field, `lucas_kanade`
    where one reads tracks or tracks are a target, else `none`."""
    grid: int | None = Field(None, ge=2)
    """Points per side of the frame; empty: 2 x data.size / model.patch."""
    cache: str | None = None
    """Folder of tats-ray prepare --motion; empty: computed anew."""


class ClipSettings(Settings):
    """Clips of a manifest, as every training job reads them."""

    manifest: str | None = None
    """Parquet file of tats-ray prepare; empty: the generated set."""
    synthetic: SyntheticSettings = SyntheticSettings()

    frames: int = Field(16, ge=1)
    """Frames of a clip."""
    stride: int = Field(4, ge=1)
    """Frames of the video from one frame to the next."""
    size: int = Field(224, ge=8)
    """Side of the square model input, pixels."""
    stored_height: int = Field(256, ge=8)
    """Height that decoded frames are stored at, pixels."""
    stored_width: int = Field(340, ge=8)
    """Width that decoded frames are stored at; the crop undoes the aspect."""
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """Video decoder."""
    decode_seconds: float = Field(20.0, gt=0)
    """Time limit for one file, seconds."""
    broken_share: float = Field(0.05, ge=0, le=1)
    """Share of broken files above which the run stops."""
    block_clips: int = Field(8, ge=1)
    """Clips of one decode task and block of the object store."""
    prefetch_blocks: int = Field(32, ge=1)
    """Blocks decoded ahead; at most twice as many wait in memory."""
    repeats: int = Field(1, ge=1)
    """Clips taken out of one decoding of a video."""
    frame_cache: str | None = None
    """Folder for the decoded frames of whole videos at the stored size, for sets that fit there;
    empty: clips are decoded each time."""
    augment: AugmentSettings = AugmentSettings()


class DataSettings(ClipSettings):
    """Clips to pre-train on; `repeats` have random starts each (MAE-ST: 4)."""

    crops: int = Field(1, ge=1)
    """Clips of the `repeats` that share their frames, each with a crop and a mask of its own: they
    cost no decoding."""
    held_out_manifest: str | None = None
    """Clips for pictures and enrichment; empty: the training set's."""
    motion: MotionSettings = MotionSettings()
