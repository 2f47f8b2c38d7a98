"""Fine-tuning a pre-trained encoder on labelled videos. Defaults are VideoMAE's code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tats_ray.config.data import AugmentSettings, ClipSettings
from tats_ray.config.job import JobConfig
from tats_ray.config.settings import Settings
from tats_ray.config.train import Share, TrainSettings


class FinetuneAugmentSettings(AugmentSettings):
    """Appearance and mixing beside the geometry; the same for all frames of a clip."""

    crop: Literal["multi_scale", "random_resized", "center", "full"] = "random_resized"
    """Which box of the frames is taken."""
    area: list[float] = Field([0.08, 1.0], min_length=2, max_length=2)
    """Smallest and largest box, share of the area."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip; 0 where left and right are classes (SSv2)."""
    rand_augment: str | None = Field(
        "rand-m7-n4-mstd0.5-inc1", pattern=r"^rand(-(m\d+|n\d+|p[01.]\d*|mstd\d*\.?\d+|inc[01]))*$"
    )
    """RandAugment in timm's notation; empty: none."""
    erasing: float = Field(0.25, ge=0, le=1)
    """Probability that a box is replaced by noise."""
    mixup: float = Field(0.8, ge=0)
    """Alpha of mixup; 0 switches it off."""
    cutmix: float = Field(1.0, ge=0)
    """Alpha of cutmix; where both are on, each takes half of the groups."""
    mix_clips: int = Field(8, ge=2, multiple_of=2)
    """Clips that share one draw and are mixed with each other."""


class FinetuneDataSettings(ClipSettings):
    """`repeats` are the same frames in new augmentations (VideoMAE's num_sample)."""

    test_manifest: str | None = None
    """Videos to test on; empty: no test, for the generated set its held-out part."""
    sampling: Literal["dense", "segments"] = "dense"
    """A window of spread frames, or one frame of each equal part of the video."""
    augment: FinetuneAugmentSettings = FinetuneAugmentSettings()


class FinetuneTrainSettings(TrainSettings):
    base_lr: float = Field(5e-4, gt=0)
    """Peak learning rate per 256 clips."""
    min_lr: float = Field(1e-6, ge=0)
    """Learning rate per 256 clips at the end of the cosine."""
    betas: list[Share] = Field([0.9, 0.999], min_length=2, max_length=2)
    """AdamW's two betas."""
    layer_decay: float = Field(0.75, gt=0, le=1)
    """Learning rate of a layer / that of the next above."""


class ClassifierSettings(Settings):
    drop_path: float = Field(0.1, ge=0, lt=1)
    """Drop path of the last block; falls linearly to 0 at the first."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the linear layer."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing."""


class ViewSettings(Settings):
    """Views of a test video, whose probabilities are averaged."""

    temporal: int = Field(5, ge=1)
    """Clips per test video, evenly spaced."""
    spatial: Literal[1, 3] = 3
    """Crops per clip: the middle, or both ends of the longer side and the middle."""


class FinetuneConfig(JobConfig):
    data: FinetuneDataSettings = FinetuneDataSettings()
    train: FinetuneTrainSettings = FinetuneTrainSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    views: ViewSettings = ViewSettings()

    @property
    def mixes(self) -> bool:
        """Whether clips are mixed with each other."""
        return self.data.augment.mixup > 0 or self.data.augment.cutmix > 0

    @model_validator(mode="after")
    def groups_divide(self) -> FinetuneConfig:
        train, group = self.train, self.data.augment.mix_clips
        share = train.batch_size // train.workers // train.accumulate
        if self.mixes and share % group:
            raise ValueError(
                f"data.augment.mix_clips {group} does not divide the {share} clips that a worker "
                "takes at once (train.batch_size / train.workers / train.accumulate)"
            )
        return self
