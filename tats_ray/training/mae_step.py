"""One optimiser step of pre-training: the same function in serial mode and under DDP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.models.features import FeatureEncoder
from tats_ray.models.inputs import clip_motion, clip_pixels, mask_noise, target_noise
from tats_ray.models.nonfinite import spread
from tats_ray.models.optimizer import GuardedOptimizer, learning_rate
from tats_ray.models.precision import autocast


def mae_step(
    config: Config,
    model: nn.Module,
    optimizer: GuardedOptimizer,
    clips: Clips,
    visible: Tensor | None,
    step: int,
    *,
    encoder: FeatureEncoder | None = None,
) -> dict[str, Tensor]:
    """Reconstructs the masked tokens of this process's clips and takes one step.

    Args:
        model: `PretrainingModel`, possibly wrapped in DistributedDataParallel, whose gradient
            averages equal the gradient of the global mean because every rank has as many clips.
        clips: this process's clips.
        visible: int64 [b, k] in any order; None where the model's joint sampler draws them.
        step: 0-based index of the step.
        encoder: of the feature target, where there is one.

    Returns:
        scalars on the device: `loss`, its weighted parts where there are several, `gradient_norm`.
    """
    device = optimizer.device
    model.train()
    pixels = clip_pixels(config, clips, device)
    choice = mask_noise(config, clips.first, len(clips), device) if visible is None else visible
    with autocast(config.train.precision, device):
        losses = model(
            pixels,
            choice,
            target_noise(config, clips.first, len(clips), device),
            clip_motion(config, clips, device),
            None if encoder is None else encoder(pixels),
        )
    loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad()
    spread(loss).backward()
    norm = optimizer.step(learning_rate(config.train.schedule, step))
    figures = {"loss": loss.detach(), "gradient_norm": norm}
    if len(losses) > 1:
        figures |= {f"loss/{name}": term.detach() for name, term in losses.items()}
    return figures
