"""Multi-view testing: several clips and crops of each video, whose probabilities are averaged.

A video's views are one batch, so a video's result depends neither on the videos beside it nor on
the number of processes. A video that cannot be decoded is missing; nothing takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.data.augment import augment_clips
from tats_ray.data.decode import Sampling
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.stage import clip_request
from tats_ray.errors import VideoDecodeError
from tats_ray.models.classifier import VideoClassifier
from tats_ray.models.numerics import autocast
from tats_ray.models.state import State, load_model_state
from tats_ray.training.classifier import build_classifier

_BELOW_ONE = float(np.nextafter(1.0, 0.0))


@dataclass(frozen=True)
class TestVideo:
    """One row of a test manifest, and its number."""

    __test__ = False  # no test class

    number: int
    row: Mapping[str, Any]

    @property
    def path(self) -> str:
        return str(self.row["path"])

    @property
    def aspect(self) -> float:
        """Width / height as shown."""
        return float(self.row["width"] / self.row["height"])


@dataclass(frozen=True)
class VideoScore:
    """What became of a video: float64 [classes] that sum to 1, or the reason why it is missing."""

    number: int
    probabilities: np.ndarray | None
    reason: str = ""


def decode_views(
    config: FinetuneConfig, row: Mapping[str, Any], decoder: DecoderProcess
) -> np.ndarray:
    """The clips of a row of the test manifest, uint8 [clips, T, H, W, 3] at the stored size.

    Raises:
        VideoDecodeError: it cannot be decoded.
    """
    data = config.data
    starts = temporal_views(config.views.temporal, data.sampling)
    request = clip_request(data, None, row, starts, data.sampling)
    return decoder.decode(request, data.decode_seconds).frames


def temporal_views(clips: int, sampling: Sampling) -> list[float]:
    """Starts of the clips: windows spread evenly from the video's first frame to its last, or
    places within the segments, which interleave. A single clip is in the middle."""
    if clips == 1:
        return [0.5]
    if sampling == "dense":
        return [min(k / (clips - 1), _BELOW_ONE) for k in range(clips)]
    return [k / clips for k in range(clips)]


def spatial_views(aspect: float, crops: int) -> np.ndarray:
    """Squares as large as the shorter side: 3 at both ends of the longer side and in its middle, or
    1 in the middle; boxes float32 [crops, 5] as those of `crop_boxes`."""
    places = np.array([0.5]) if crops == 1 else np.linspace(0.0, 1.0, crops)
    width, height = min(1.0, 1.0 / aspect), min(1.0, aspect)  # shares of the frame's sides
    left, top = places * (1.0 - width), places * (1.0 - height)
    boxes = [left, top, left + width, top + height, np.zeros(crops)]
    return np.stack(boxes, axis=1).astype(np.float32)


class VideoScorer:
    """A classifier in testing mode on one device."""

    def __init__(
        self, config: FinetuneConfig, classes: int, weights: State, device: torch.device
    ) -> None:
        """Raises: CheckpointError: the weights are of another model."""
        self.config = config
        self.device = device
        self.model: VideoClassifier = build_classifier(config, classes)
        load_model_state(self.model, weights)
        self.model.to(device).eval()

    @torch.no_grad()
    def score(self, frames: np.ndarray, aspect: float) -> np.ndarray:
        """Mean of the views' probabilities, float64 [classes]; each view's softmax is in float32.

        Args:
            frames: uint8 [clips, T, H, W, 3] at the stored size.
        """
        config = self.config
        crops = config.views.spatial
        boxes = torch.from_numpy(np.tile(spatial_views(aspect, crops), (len(frames), 1)))
        clips = torch.from_numpy(np.repeat(frames, crops, axis=0)).to(self.device)
        pixels = augment_clips(clips, boxes.to(self.device), config.data.size)
        with autocast(config.train.precision, self.device):
            logits = self.model(pixels)
        return logits.float().softmax(dim=-1).double().mean(dim=0).cpu().numpy()


def score_videos(videos: list[TestVideo], scorer: VideoScorer) -> list[VideoScore]:
    """Decodes and scores videos one after another, in this process."""
    scores = []
    with closing(DecoderProcess()) as decoder:
        for video in videos:
            try:
                frames = decode_views(scorer.config, video.row, decoder)
                scores.append(VideoScore(video.number, scorer.score(frames, video.aspect)))
            except VideoDecodeError as error:
                scores.append(VideoScore(video.number, None, error.reason))
    return scores
