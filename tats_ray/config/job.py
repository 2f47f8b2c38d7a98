"""What the configuration of every training job has, whatever it trains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

from pydantic import model_validator

from tats_ray.config.data import ClipSettings
from tats_ray.config.geometry import TokenGrid
from tats_ray.config.model import ModelSettings
from tats_ray.config.runtime import (
    CheckpointSettings,
    ClusterSettings,
    RunSettings,
    TrackingSettings,
)
from tats_ray.config.settings import Settings
from tats_ray.config.train import TrainSettings


class TrackedConfig(Settings):
    """What a tracked run reads of its job, whatever that does."""

    run: RunSettings
    tracking: TrackingSettings = TrackingSettings()

    @property
    def output_dir(self) -> Path:
        """`run.output_dir`, absolute."""
        return Path(self.run.output_dir).absolute()

    @property
    def tracking_uri(self) -> str:
        """`tracking.uri`, or the SQLite file of the output directory; always absolute."""
        return self.tracking.uri or f"sqlite:///{self.output_dir / 'mlflow.db'}"

    def below(self, parent: str | None) -> Self:
        """The same with its MLflow run shown below another one."""
        tracking = self.tracking.model_copy(update={"parent": parent})
        return self.model_copy(update={"tracking": tracking})


class JobConfig(TrackedConfig):
    """Run directory, cluster, records and the driver's loop read no more than this."""

    data: ClipSettings = ClipSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    cluster: ClusterSettings = ClusterSettings()

    def for_videos(self, videos: int) -> Self:
        """With the steps that `train.epochs` means for so many videos, where it is given."""
        train = self.train
        if train.epochs is None:
            return self
        steps = math.ceil(train.epochs * videos * self.data.repeats / train.batch_size)
        return self.model_copy(update={"train": train.model_copy(update={"steps": steps})})

    @property
    def grid(self) -> TokenGrid:
        """Token grid of one clip."""
        side = self.data.size // self.model.patch
        return TokenGrid(self.data.frames // self.model.tubelet, side, side)

    @property
    def rollout_workers(self) -> int:
        """Resident rollout workers."""
        return 0

    @property
    def remote_learners(self) -> int:
        """Resident PPO learners outside the driver."""
        return 0

    @model_validator(mode="after")
    def sizes_fit(self) -> JobConfig:
        data, model = self.data, self.model
        if data.size % model.patch:
            raise ValueError(
                f"data.size {data.size} is not divisible by model.patch {model.patch}: "
                f"use data.size={data.size // model.patch * model.patch or model.patch}"
            )
        if data.frames % model.tubelet:
            raise ValueError(
                f"data.frames {data.frames} is not divisible by model.tubelet {model.tubelet}"
            )
        if data.block_clips % data.repeats:
            raise ValueError(
                f"data.block_clips {data.block_clips} is not divisible by data.repeats "
                f"{data.repeats}"
            )
        return self

    @model_validator(mode="after")
    def batches_divide(self) -> JobConfig:
        batch, workers = self.train.batch_size, self.train.workers
        if batch % workers:
            raise ValueError(
                f"train.batch_size {batch} is not divisible by train.workers {workers}: "
                f"use train.batch_size={(batch // workers + 1) * workers}, or for a run that has "
                "begun another number of workers"
            )
        if batch // workers % self.train.accumulate:
            raise ValueError(
                f"train.accumulate {self.train.accumulate} does not divide the "
                f"{batch // workers} clips of a worker (train.batch_size / train.workers)"
            )
        return self
