"""The optimisation of the masked autoencoder."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from tats_ray.config.settings import Settings

Share = Annotated[float, Field(ge=0, lt=1)]


class Schedule(NamedTuple):
    """The learning rate over the steps: linear from zero to the peak, then a half cosine."""

    peak: float
    final: float  # at the last step
    warmup_steps: int
    steps: int  # in all


class TrainSettings(Settings):
    steps: int = Field(100_000, ge=1)  # optimiser steps of the MAE in all
    workers: int = Field(1, ge=1)  # data-parallel (DDP) workers
    batch_size: int = Field(256, ge=1)  # clips per step over all workers
    base_lr: float = Field(1.5e-4, gt=0)  # per 256 clips; lr = base_lr x batch_size / 256
    min_lr: float = Field(1e-5, ge=0)  # per 256 clips, at the end of the cosine
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    betas: list[Share] = Field([0.9, 0.95], min_length=2, max_length=2)
    gradient_clip: float | None = Field(None, gt=0)
    skip_nonfinite: int = Field(0, ge=0)  # steps with NaN or Inf that are left out before it ends
    # A pre-training run, a checkpoint of one, or an official VideoMAE or AdaMAE file.
    initial_weights: str | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the GPU has it

    # Ray mode
    snapshot_interval: int = Field(20, ge=1)  # steps a lost worker group replays at most
    max_failures: int = Field(3, ge=0)  # restarts: of Train workers, PPO learners, the hub

    @model_validator(mode="after")
    def rates_are_ordered(self) -> TrainSettings:
        if self.min_lr > self.base_lr:
            raise ValueError(f"min_lr {self.min_lr} is above base_lr {self.base_lr}")
        return self

    @property
    def lr(self) -> float:
        """Peak learning rate after linear scaling with the batch."""
        return self.base_lr * self.batch_size / 256

    @property
    def schedule(self) -> Schedule:
        """Rates scaled with the batch."""
        final = self.min_lr * self.batch_size / 256
        return Schedule(self.lr, final, self.warmup_steps, self.steps)
