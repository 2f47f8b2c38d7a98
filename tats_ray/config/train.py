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
    steps: int = Field(100_000, ge=1)
    """Optimiser steps of the autoencoder in all."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the training videos, each of which gives data.repeats clips per pass; decides
    the steps where it is given."""
    workers: int = Field(1, ge=1)
    """Data-parallel (DDP) workers."""
    batch_size: int = Field(256, ge=1)
    """Clips per step over all workers."""
    accumulate: int = Field(1, ge=1)
    """Parts of a worker's share of a step that pass through the model in turn, to save memory."""
    recompute: bool = False
    """Whether the backward pass computes the activations of each block again, to save memory."""
    compile: bool = False
    """Whether torch.compile turns the model's step into fused kernels, which takes a minute at the
    start; on a CPU it needs a C++ compiler."""
    base_lr: float = Field(1.5e-4, gt=0)
    """Peak learning rate per 256 clips: the rate is base_lr x batch_size / 256."""
    min_lr: float = Field(1e-5, ge=0)
    """Learning rate per 256 clips at the end of the cosine."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the learning rate rises from 0."""
    weight_decay: float = Field(0.05, ge=0)
    """AdamW's weight decay; none for biases and norms."""
    betas: list[Share] = Field([0.9, 0.95], min_length=2, max_length=2)
    """AdamW's two betas."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient; empty: not clipped."""
    skip_nonfinite: int = Field(0, ge=0)
    """Steps with NaN or infinity that are left out before the run ends."""
    initial_weights: str | None = None
    """A run, a checkpoint or export of one, a folder of the transformers library, or an official
    VideoMAE, AdaMAE or TrackMAE file to start from; empty: from scratch."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format; auto: bf16 where the GPU has it."""

    snapshot_interval: int = Field(20, ge=1)
    """Steps that a lost group of workers repeats at most; Ray mode."""
    max_failures: int = Field(3, ge=0)
    """Restarts of Train workers, of PPO learners and of the hub; Ray mode."""

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


class PretrainSettings(TrainSettings):
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the autoencoder's weights, which is then what is evaluated and
    fine-tuned; empty: none is kept."""
