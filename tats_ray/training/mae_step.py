"""One optimiser step of the masked autoencoder: the same function in serial mode and under DDP."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.models.inputs import choose_targets, clip_pixels
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.optimizer import GuardedOptimizer, learning_rate
from tats_ray.models.precision import autocast


class MAEStep(NamedTuple):
    loss: Tensor  # scalar on the device
    gradient_norm: Tensor  # scalar on the device, before clipping


def mae_step(
    config: Config,
    model: nn.Module,
    optimizer: GuardedOptimizer,
    clips: Clips,
    visible: Tensor,
    step: int,
) -> MAEStep:
    """Reconstructs the masked tokens of this process's clips and takes one step.

    Args:
        model: `MaskedAutoencoder`, possibly wrapped in DistributedDataParallel, whose gradient
            averages equal the gradient of the global mean because every rank has as many clips.
        clips: this process's clips.
        visible: int64 [b, k] in any order.
        step: 0-based index of the step.
    """
    device = visible.device
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(inner, MaskedAutoencoder)
    model.train()
    patches = inner.patches(clip_pixels(config, clips, device))
    targets = choose_targets(config, visible, clips.first)
    with autocast(config.train.precision, device):
        loss = model(patches, visible.sort(dim=1).values, targets).error.mean()
    optimizer.zero_grad()
    loss.backward()
    norm = optimizer.step(learning_rate(config.train, step))
    return MAEStep(loss.detach(), norm)
