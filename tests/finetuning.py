"""Settings of the fine-tuning tests: a model and a set that train in milliseconds."""

from __future__ import annotations

import numpy as np

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import load_as
from tats_ray.data.labelled_clips import ClipLabels

TINY_FINETUNE = [
    "run.name=test", "data.frames=8", "data.stride=1", "data.size=32", "data.stored_height=32",
    "data.stored_width=32", "data.block_clips=4", "data.prefetch_blocks=8", "data.repeats=2",
    "data.augment.mix_clips=4", "model.size=tiny", "model.width=24", "model.depth=2",
    "model.heads=2", "train.batch_size=8", "train.base_lr=0.1", "train.steps=8",
    "train.precision=fp32", "views.temporal=2", "tracking.log_interval=2",
    "tracking.mlflow=false", "checkpoint.interval=3", "cluster.mode=serial",
]  # fmt: skip
PLAIN = [
    "data.augment.crop=full", "data.augment.flip=0.0", "data.augment.rand_augment=null",
    "data.augment.erasing=0.0", "data.augment.mixup=0.0", "data.augment.cutmix=0.0",
    "classifier.drop_path=0.0", "classifier.label_smoothing=0.0",
]  # fmt: skip


def finetune_config(*overrides: str) -> FinetuneConfig:
    return load_as(FinetuneConfig, None, [*TINY_FINETUNE, *overrides])


def clip_labels(classes: int, videos: int, config: FinetuneConfig) -> ClipLabels:
    rows = np.arange(videos, dtype=np.int64) % classes
    return ClipLabels(rows, config.run.seed, config.data.repeats)
