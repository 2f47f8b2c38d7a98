"""What the frozen encoder makes of whole videos: one vector each, from all tokens.

The middle square of every clip goes through the encoder without masking; the features of its
tokens, whole or in cells, and then of all clips of a video are averaged. A video that cannot be
decoded is missing, with the reason; none is ever replaced.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from tats_ray.config import TokenGrid
from tats_ray.config.data import AugmentSettings, DataSettings
from tats_ray.config.model import ModelSettings
from tats_ray.data.augment import augment_clips, crop_boxes
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.stage import check_share, clip_request
from tats_ray.errors import NonFiniteError, VideoDecodeError
from tats_ray.evaluation.multi_view import temporal_views
from tats_ray.models.mae import build_mae
from tats_ray.models.state import State, load_model_state

_PLAIN = AugmentSettings(crop="center")  # nothing random: the middle square


@dataclass(frozen=True)
class ExtractionPlan:
    """Which features of which videos."""

    data: DataSettings
    model: ModelSettings
    grid: TokenGrid
    weights: State  # of the autoencoder; what is not the encoder is left alone
    views: int  # clips per video
    layer: int | None  # block whose output is taken; None: the last one's, normalised
    pool: Sequence[int]  # as `pool_tokens`
    change: bool  # as `pool_tokens`
    manifest: pa.Table  # one row per video

    @property
    def width(self) -> int:
        """Features per video."""
        return self.model.width * math.prod(self.pool) * (2 if self.change else 1)

    @property
    def block_videos(self) -> int:
        """Videos that are decoded and encoded by one task: about `data.block_clips` clips."""
        return max(1, self.data.block_clips // self.views)

    @property
    def blocks(self) -> int:
        return -(-self.manifest.num_rows // self.block_videos)


class BlockFeatures(NamedTuple):
    """The videos of one block."""

    rows: np.ndarray  # int64 [n], of the manifest
    features: np.ndarray  # float32 [n, plan.width]; zeros where a video is missing
    reasons: Sequence[str]  # why it is missing; empty where it is not


@dataclass(frozen=True)
class VideoFeatures:
    """Features of a manifest's videos."""

    features: np.ndarray  # float32 [V, plan.width] in the manifest's order; 0 for missing videos
    missing: dict[str, str]  # path -> reason of every video that cannot be decoded


class FrozenEncoder:
    """The trained encoder, in evaluation mode and without gradients."""

    def __init__(self, plan: ExtractionPlan, device: torch.device) -> None:
        """Raises: CheckpointError: the weights do not fit the model."""
        self._plan = plan
        self._device = device
        mae = build_mae(plan.model, plan.grid, seed=0).eval()
        parts = nn.ModuleDict({"patch_embedding": mae.patch_embedding, "encoder": mae.encoder})
        if plan.layer is not None:  # then nothing reads the last norm, which classifiers lack
            del mae.encoder.norm
        read = tuple(f"{name}." for name in parts)
        unread = () if plan.layer is None else ("encoder.norm.",)
        weights = {k: v for k, v in plan.weights.items() if k.startswith(read)}
        load_model_state(parts, {k: v for k, v in weights.items() if not k.startswith(unread)})
        self._mae = mae.to(device)

    @torch.inference_mode()
    def features(self, frames: np.ndarray, aspect: float) -> np.ndarray:
        """Clips of one video, uint8 [R, T, H, W, 3] -> float32 [plan.width].

        Args:
            aspect: width / height of the video.
        """
        boxes = crop_boxes(_PLAIN, np.full(len(frames), aspect), seed=0, first=0)
        pixels = augment_clips(
            torch.tensor(frames, device=self._device),
            torch.from_numpy(boxes).to(self._device),
            self._plan.data.size,
        )
        plan, encoder = self._plan, self._mae.encoder
        tokens = self._mae.patch_embedding(self._mae.patches(pixels)) + encoder.positions
        if plan.layer is None:
            tokens = encoder.norm(encoder.blocks(tokens))
        else:
            tokens = encoder.blocks[: plan.layer](tokens)
        pooled = pool_tokens(tokens, plan.grid, plan.pool, change=plan.change)
        return pooled.mean(dim=0).cpu().numpy()


def pool_tokens(tokens: Tensor, grid: TokenGrid, pool: Sequence[int], *, change: bool) -> Tensor:
    """Averages tokens in cells of space and time.

    Args:
        tokens: float [R, N, d].
        pool: cells over time, rows and columns.
        change: also averages each feature's absolute change from one slice to the next: a mean over
            time cancels what goes to and fro.

    Returns:
        float [R, D], D = d x cells, twice that with `change`.
    """
    places = tokens.movedim(-1, 1).unflatten(2, (grid.time, grid.rows, grid.columns))
    parts = [places, places.diff(dim=2).abs()] if change else [places]
    time, rows, columns = pool
    cells = [F.adaptive_avg_pool3d(part, (time, rows, columns)).flatten(1) for part in parts]
    return torch.cat(cells, dim=1)


def extract_block(
    plan: ExtractionPlan, block: int, encoder: FrozenEncoder, decoder: DecoderProcess
) -> BlockFeatures:
    """Decodes and encodes the videos of one block, each on its own: a video's features do not
    depend on its neighbours."""
    first = block * plan.block_videos
    videos = plan.manifest.slice(first, plan.block_videos).to_pylist()
    features = np.zeros((len(videos), plan.width), dtype=np.float32)
    reasons = [""] * len(videos)
    for place, video in enumerate(videos):
        starts = temporal_views(plan.views, "dense")
        request = clip_request(plan.data, None, video, starts)
        try:
            frames = decoder.decode(request, plan.data.decode_seconds).frames
        except VideoDecodeError as error:
            reasons[place] = error.reason
            continue
        features[place] = encoder.features(frames, video["width"] / video["height"])
    return BlockFeatures(np.arange(first, first + len(videos)), features, reasons)


def extract_serially(plan: ExtractionPlan, device: torch.device) -> Iterator[BlockFeatures]:
    """All blocks, in this process."""
    encoder = FrozenEncoder(plan, device)
    with closing(DecoderProcess()) as decoder:
        for block in range(plan.blocks):
            yield extract_block(plan, block, encoder, decoder)


def gather(plan: ExtractionPlan, blocks: Iterable[BlockFeatures]) -> VideoFeatures:
    """Puts blocks together, in whatever order they come, with progress on a terminal.

    Raises:
        TooManyBrokenVideosError: more videos are missing than `data.broken_share` permits.
        NonFiniteError: names the first video whose features are not finite.
    """
    paths = plan.manifest["path"].to_pylist()
    features = np.zeros((len(paths), plan.width), dtype=np.float32)
    missing: dict[str, str] = {}
    console = Console(stderr=True)
    shown = track(
        blocks, "features", total=plan.blocks, console=console, disable=not console.is_terminal
    )
    for rows, values, reasons in shown:
        features[rows] = values
        missing |= {paths[row]: reason for row, reason in zip(rows, reasons, strict=True) if reason}
        check_share(missing, len(set(paths)), plan.data.broken_share)
    odd = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(odd):
        raise NonFiniteError(f"{paths[odd[0]]}: the encoder gives features that are not finite")
    return VideoFeatures(features, missing)
