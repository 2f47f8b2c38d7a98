"""What a pre-training run needs: operations, GPU hours, decode workers and rollout workers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tats_ray.config import Config
from tats_ray.config.masking import MaskingSettings
from tats_ray.controller.step_cost import step_flops
from tats_ray.errors import ConfigError

# Dense half-precision products with 32-bit sums, operations per second, as the makers publish them.
PEAKS = {"v100": 125e12, "a5000": 111e12, "a100": 312e12, "h100": 989e12, "h200": 989e12}


@dataclass(frozen=True)
class Needs:
    """Of a whole run.

    Attributes:
        clips: that are trained.
        operations: of all steps, in floating point; element-wise work is not counted.
        gpu_hours: of one GPU, rollouts and PPO included.
        decode_cores: CPU cores that decode as fast as the GPUs train.
        rollout_gpus: GPUs for rollouts and PPO beside each that trains; 0 where steps score
            their own draws, or nothing is learned.
    """

    clips: int
    operations: float
    gpu_hours: float
    decode_cores: int
    rollout_gpus: float


def plan_run(
    config: Config,
    clips: int,
    *,
    gpu: str,
    gpus: int,
    utilization: float,
    decode_seconds: float,
) -> Needs:
    """Needs of a run over so many clips.

    Args:
        gpu: a key of `PEAKS`.
        gpus: that train.
        utilization: share of the peak that a step reaches: what `step` measures on such a GPU, or
            .05 as VideoMAE's and .17 as AVION's published hours come to.
        decode_seconds: CPU seconds of a clip, as `decode` measures.

    Raises:
        ConfigError: the GPU is not known.
    """
    if gpu not in PEAKS:
        raise ConfigError(f"--gpu: {gpu!r} is unknown; known here: {', '.join(PEAKS)}")
    whole = step_flops(config) / config.train.batch_size
    masking = MaskingSettings(system="random", ratio=config.masking.ratio)
    alone = config.model_copy(update={"masking": masking})
    trained = step_flops(alone) / config.train.batch_size
    if not config.rollout_workers:
        trained = whole
    rate = utilization * PEAKS[gpu]
    decoded = gpus * rate / trained / config.data.crops  # clips per second
    return Needs(
        clips=clips,
        operations=clips * whole,
        gpu_hours=clips * whole / rate / 3600,
        decode_cores=math.ceil(decoded * decode_seconds),
        rollout_gpus=whole / trained - 1,
    )
