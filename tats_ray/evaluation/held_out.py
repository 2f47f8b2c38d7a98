"""Held-out clips, decoded once, with the ground-truth masks where there are some; and motion
enrichment: how much more often than chance a masking system keeps moving things visible.

Enrichment = mean moving cover of the visible tokens / mean moving cover of all tokens, where the
cover of a token is the share of its pixels that belongs to moving objects. 1.0 is chance. The same
metric for static distractors tells motion from mere contrast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from tats_ray.config import Config
from tats_ray.config.data import AugmentSettings
from tats_ray.data.augment import augment_clips, crop_boxes, crop_motion, crop_resize
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.ground_truth import GroundTruth, load_ground_truth
from tats_ray.data.manifest import read_manifest
from tats_ray.data.sampling import frame_indices
from tats_ray.data.stage import clip_request, motion_request
from tats_ray.errors import VideoDecodeError

MIDDLE = 0.5  # start of the window: the middle of the video
_PLAIN = AugmentSettings(crop="center")  # nothing random: the middle square


@dataclass(frozen=True)
class HeldOut:
    """Clips in model geometry and, where it is known what moves, where that is."""

    pixels: Tensor  # float32 [B, 3, T, size, size] in [0, 1]
    motion: Tensor | None  # float32 [B, T', 2 rows, 2 columns, 2] as `crop_motion`
    moving: Tensor | None  # float32 [B, N], share of each token inside moving objects
    static: Tensor | None  # float32 [B, N], share of each token inside static distractors
    # bool [B, 2, T, size, size], the pixels of moving objects and of static distractors
    objects: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, start: int, stop: int) -> HeldOut:
        """A contiguous part."""
        optional = (self.motion, self.moving, self.static, self.objects)
        return HeldOut(
            self.pixels[start:stop],
            *(None if value is None else value[start:stop] for value in optional),
        )

    def enrichment(self, visible: Tensor) -> Enrichment | None:
        """Of tokens int64 [B, k] that are visible; None without ground truth."""
        if self.moving is None or self.static is None:
            return None
        return Enrichment(enrichment(visible, self.moving), enrichment(visible, self.static))


@dataclass(frozen=True)
class Enrichment:
    """Pooled over clips; nan where no clip has such an object. Real masks know no static ones."""

    moving: float
    static: float


def load_held_out(config: Config, manifest: str, limit: int) -> HeldOut:
    """`decode_middles` of the first `limit` videos of a manifest."""
    rows = read_manifest(manifest).slice(0, limit).to_pylist()
    with closing(DecoderProcess()) as decoder:
        return decode_middles(config, rows, decoder)


def decode_middles(
    config: Config,
    rows: Sequence[Mapping[str, Any]],
    decoder: DecoderProcess,
    start: float = MIDDLE,
) -> HeldOut:
    """Decodes one window, the middle unless told otherwise, of the readable videos among some rows
    of a manifest.

    Args:
        start: in [0, 1), as of `frame_indices`.

    Raises:
        VideoDecodeError: of the first video, where none can be read.
    """
    decoded, kept = [], []
    failure: VideoDecodeError | None = None
    for row in rows:
        request = clip_request(config.data, motion_request(config), row, [start])
        try:
            decoded.append(decoder.decode(request, config.data.decode_seconds))
            kept.append(row)
        except VideoDecodeError as error:
            failure = failure or error
    if failure is not None and not kept:
        raise failure
    aspects = np.array([row["width"] / row["height"] for row in kept])
    boxes = torch.from_numpy(crop_boxes(_PLAIN, aspects, seed=0, first=0))
    frames = torch.from_numpy(np.concatenate([clips.frames for clips in decoded]))
    pixels = augment_clips(frames, boxes, config.data.size)
    motion = moving = static = objects = None
    fields = [torch.tensor(clips.motion) for clips in decoded if clips.motion is not None]
    if fields:
        motion = crop_motion(torch.cat(fields), boxes, config.motion_points, config.data.size)
    truths = [load_ground_truth(row) for row in kept]
    known = [truth for truth in truths if truth is not None]
    if len(known) == len(kept):
        parts = zip(kept, known, boxes, strict=True)
        shown = [_objects(config, row, truth, box, start) for row, truth, box in parts]
        sizes = (config.model.tubelet, config.model.patch)
        moving, static = (
            torch.cat([token_cover(part[kind][None], *sizes) for part in shown]) for kind in (0, 1)
        )
        objects = torch.stack(shown) > 0.5
    return HeldOut(pixels, motion, moving, static, objects)


def _objects(
    config: Config, row: Mapping[str, Any], truth: GroundTruth, box: Tensor, start: float
) -> Tensor:
    """Share of each pixel that moving and static objects cover at the decoded frames, float32
    [2, T, size, size]."""
    indices = frame_indices(row["frames"], config.data.frames, config.data.stride, start)
    maps = torch.from_numpy(np.stack([mask[indices] for mask in truth])).float()
    return crop_resize(maps, box.expand(len(maps), -1), config.data.size)


def token_cover(mask: Tensor, tubelet: int, patch: int) -> Tensor:
    """Share of each token's pixels inside the mask: bool [B, T, H, W] -> float32 [B, N]."""
    return reduce(
        mask.float(), "b (t u) (h p) (w q) -> b (t h w)", "mean", u=tubelet, p=patch, q=patch
    )


def enrichment(visible: Tensor, cover: Tensor) -> float:
    """Enrichment of drawn tokens int64 [B, k], by every token's cover, float32 [B, N]."""
    return (cover.gather(1, visible).mean() / cover.mean()).item()
