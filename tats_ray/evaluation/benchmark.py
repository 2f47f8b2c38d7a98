"""What a training step costs: clips per second, memory, and the sampler's share, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.models.precision import default_device
from tats_ray.rl.serial_learner import SerialActorLearner
from tats_ray.training.trainer import MAETrainer

WARM_UP_STEPS = 3

T = TypeVar("T")


@dataclass(frozen=True)
class StepCost:
    """Medians over the timed steps.

    Attributes:
        clips_per_second: of the whole step.
        step_seconds: rollout, PPO update and the autoencoder's step.
        mae_seconds: the autoencoder's step alone.
        sampler_share: part of the step that random masking would not need.
        peak_memory_mib: most memory allocated on the GPU; None on a CPU.
        first_loss, last_loss: of the timed steps, to show that it was training.
    """

    clips_per_second: float
    step_seconds: float
    mae_seconds: float
    sampler_share: float
    peak_memory_mib: float | None
    first_loss: float
    last_loss: float


def measure_step(config: Config, steps: int) -> StepCost:
    """Times serial training steps on random clips that lie in memory; decoding is not included."""
    device = default_device()
    trainer = MAETrainer(config, device)
    learner = SerialActorLearner(config, device, trainer.mae) if config.masking.learned else None
    clips = _random_clips(config)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    sampler_times, mae_times, losses = [], [], []
    for step in range(WARM_UP_STEPS + steps):
        seconds, visible = _timed(partial(_visible, trainer, learner, clips, step), device)
        sampler_times.append(seconds if learner is not None else 0.0)
        mae_times.append(_timed(partial(trainer.train_step, clips, visible), device)[0])
        losses += [report.figures["loss"] for report in trainer.reports()]
    sampler = float(np.median(sampler_times[WARM_UP_STEPS:]))
    mae = float(np.median(mae_times[WARM_UP_STEPS:]))
    return StepCost(
        clips_per_second=len(clips) / (sampler + mae),
        step_seconds=sampler + mae,
        mae_seconds=mae,
        sampler_share=sampler / (sampler + mae),
        peak_memory_mib=_peak_memory(device),
        first_loss=losses[WARM_UP_STEPS],
        last_loss=losses[-1],
    )


def _visible(
    trainer: MAETrainer, learner: SerialActorLearner | None, clips: Clips, step: int
) -> Tensor:
    """Visible tokens by rollout and PPO update, or from a fixed masker."""
    if learner is None:
        return trainer.select(clips, None)
    rollout, _ = learner.run_round(clips, step)
    return torch.from_numpy(rollout.visible[:, 0]).to(trainer.device)


def _random_clips(config: Config) -> Clips:
    data, count = config.data, config.train.batch_size
    shape = (count, data.frames, data.canvas_height, data.canvas_width, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Clips(
        frames, np.full(count, data.canvas_width / data.canvas_height), np.arange(count), 0
    )


def _timed(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, result


def _peak_memory(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / 2**20
