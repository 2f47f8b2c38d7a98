"""What a sampler and a rollout cost in one process, beside the autoencoder's own work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from tats_ray.benchmarks.results import Figure
from tats_ray.config import Config
from tats_ray.controller.step_cost import busy_seconds, random_clips
from tats_ray.data.clips import Clips
from tats_ray.errors import ConfigError
from tats_ray.masking.selection import draw_without_replacement
from tats_ray.models.mae import build_mae
from tats_ray.models.numerics import autocast, default_device
from tats_ray.rl.learner import InProcessPolicy
from tats_ray.training.policy import build_in_process_policy


def measure_sampler(config: Config, repeats: int) -> dict[str, Figure]:
    """Seconds per clip of what the sampler sees, of a draw from it, and of a PPO update on draws
    that lie there; of all cores of a CPU, or by the clock on a GPU.

    Raises:
        ConfigError: the system has no sampler that rollouts train.
    """
    policy, clips = _policy(config)
    environment, inputs = policy.environment, policy.environment.inputs
    view = environment.observe(clips)
    noise = inputs.mask_noise(clips.first, len(clips), view.device)
    rollout = replace(policy.roll_out(clips, 0), view=view)

    @torch.no_grad()
    def draw() -> None:
        with autocast(config.train.precision, view.device):
            log_probs = policy.sampler.log_probs(view)
        draw_without_replacement(log_probs, noise, config.visible)

    parameters = sum(weights.numel() for weights in policy.sampler.parameters())
    parts: dict[str, Callable[[], object]] = {
        "view": lambda: environment.observe(clips),
        "draw": draw,
        "update": lambda: policy.update(rollout, clips, 0),
    }
    figures = _timed(parts, len(clips), "s/clip", repeats)
    return figures | {"parameters": Figure(parameters / 1e6, "M")}


def measure_rollouts(config: Config, repeats: int) -> dict[str, Figure]:
    """Seconds per draw of a rollout worker: seeing the clip, drawing and scoring.

    Raises:
        ConfigError: the system has no rollouts.
    """
    policy, clips = _policy(config)
    draws = len(clips) * config.rl.draws_per_clip
    return _timed({"rollout": lambda: policy.roll_out(clips, 0)}, draws, "s/draw", repeats)


def _policy(config: Config) -> tuple[InProcessPolicy, Clips]:
    if not config.learns_by_rollouts:
        raise ConfigError(
            f"masking.system={config.masking.system} has no sampler that rollouts train: set "
            "masking.system=tats"
        )
    device = default_device()
    mae = build_mae(config.model, config.grid, config.run.seed).to(device)
    return build_in_process_policy(config, device, mae), random_clips(config)


def _timed(
    parts: dict[str, Callable[[], object]], units: int, unit: str, repeats: int
) -> dict[str, Figure]:
    """Medians of the parts' times, each repeat taking them in turn."""
    for work in parts.values():
        work()
    device = default_device()
    times = [[busy_seconds(work, device) for work in parts.values()] for _ in range(repeats)]
    columns = np.array(times).T / units
    return {name: Figure.of(column, unit) for name, column in zip(parts, columns, strict=True)}
