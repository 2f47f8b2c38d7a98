"""What a fine-tuning step reads: cropped, erased and mixed clips, and soft targets.

All of it is seeded by the clips' run-wide index, and mixing happens in fixed groups of clips, so
that neither a restart nor the number of workers changes what is trained on.
"""

from __future__ import annotations

import torch
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.data.augment import augment_clips, crop_boxes
from tats_ray.data.clips import Clips
from tats_ray.data.randomness import Stream, global_generators, torch_seed
from tats_ray.models.tokens import IMAGE_MEAN, IMAGE_STD


def training_pixels(config: FinetuneConfig, clips: Clips, device: torch.device) -> Tensor:
    """Decoded clips -> float32 [B, 3, T, size, size], in [0, 1] but for erased boxes."""
    augment, seed = config.data.augment, config.run.seed
    boxes = crop_boxes(augment, clips.aspects, seed=seed, first=clips.first)
    frames = torch.from_numpy(clips.frames).to(device, non_blocking=True)
    pixels = augment_clips(frames, torch.from_numpy(boxes).to(device), config.data.size)
    return erase(pixels, augment.erasing, seed, clips.first) if augment.erasing else pixels


def erase(pixels: Tensor, probability: float, seed: int, first: int) -> Tensor:
    """Random erasing: in some clips a box, the same in all frames, becomes normal noise.

    Args:
        pixels: float [B, 3, T, S, S] in [0, 1]; the noise is standard normal in the scale of
            standardised pixels.
        first: run-wide index of the first clip.
    """
    eraser = RandomErasing(probability, mode="pixel", device=pixels.device)
    mean, std = (torch.tensor(v, device=pixels.device) for v in (IMAGE_MEAN, IMAGE_STD))
    mean, std = mean.view(3, 1, 1, 1), std.view(3, 1, 1, 1)
    values = (pixels - mean) / std
    for row, clip in enumerate(values):
        clip_seed = torch_seed(seed, Stream.ERASING, first + row)
        torch.manual_seed(clip_seed)
        with global_generators(clip_seed):
            eraser(clip.flatten(0, 1))  # to timm, a picture of 3 T channels
    return values * std + mean


def mix(
    config: FinetuneConfig, pixels: Tensor, labels: Tensor, classes: int, first: int
) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix within groups of `mix_clips` clips, one draw per group, and smoothing.

    Args:
        pixels: float [B, 3, T, S, S]; changed in place.
        labels: int64 [B].
        first: run-wide index of the first clip.

    Returns:
        pixels, and targets float32 [B, classes] whose rows sum to 1.
    """
    augment, smoothing = config.data.augment, config.classifier.label_smoothing
    if not config.mixes:
        return pixels, mixup_target(labels, classes, smoothing=smoothing)
    mixup = Mixup(
        augment.mixup, augment.cutmix, label_smoothing=smoothing, num_classes=classes
    )  # of a whole group, always, each kind in half of the groups: timm's defaults, as VideoMAE
    targets = []
    for start in range(0, len(pixels), augment.mix_clips):
        group = slice(start, start + augment.mix_clips)
        with global_generators(torch_seed(config.run.seed, Stream.MIXING, first + start)):
            # Time among the channels: the same box in all frames.
            targets.append(mixup(pixels[group].flatten(1, 2), labels[group])[1])
    return pixels, torch.cat(targets)
