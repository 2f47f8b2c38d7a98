"""What a classifier got right on a test manifest, and what is missing from that figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tats_ray.errors import TooManyBrokenVideosError
from tats_ray.evaluation.multi_view import TestVideo, VideoScore
from tats_ray.evaluation.scores import class_shares, confusion, top_share


@dataclass(frozen=True)
class Accuracy:
    """Shares of the videos that could be decoded; a missing one is neither right nor wrong.

    Attributes:
        per_class: by class name; None for a class without videos.
        confusion: int64 [classes, classes], true class by guessed class.
        missing: path and reason of every missing video.
    """

    videos: int
    top1: float
    top5: float
    per_class: dict[str, float | None]
    confusion: np.ndarray
    missing: list[tuple[str, str]]

    @property
    def mean_class(self) -> float:
        """Mean over the classes that have videos."""
        return float(np.mean([share for share in self.per_class.values() if share is not None]))

    def figures(self) -> dict[str, Any]:
        """The numbers in short."""
        return {
            "top1": self.top1,
            "top5": self.top5,
            "mean_class_accuracy": self.mean_class,
            "test_videos": self.videos,
            "test_videos_missing": len(self.missing),
        }


def measure_accuracy(
    scores: list[VideoScore], videos: list[TestVideo], labels: np.ndarray, classes: list[str]
) -> Accuracy:
    """Compares scores with labels.

    Args:
        scores: one per video, in the same order.
        labels: int64 [videos], class numbers.

    Raises:
        TooManyBrokenVideosError: every video is missing.
    """
    assert [s.number for s in scores] == [v.number for v in videos], "each video is scored once"
    missing = [
        (video.path, score.reason)
        for video, score in zip(videos, scores, strict=True)
        if score.probabilities is None
    ]
    found = np.array([score.probabilities is not None for score in scores])
    if not found.any():
        path, reason = missing[0]
        raise TooManyBrokenVideosError(
            f"none of the {len(videos)} test videos can be decoded; the first is {path} ({reason})"
        )
    table = np.stack([s.probabilities for s in scores if s.probabilities is not None])
    counts = confusion(table, labels[found])
    return Accuracy(
        videos=len(table),
        top1=top_share(table, labels[found], 1),
        top5=top_share(table, labels[found], min(5, len(classes))),
        per_class=dict(zip(classes, class_shares(counts), strict=True)),
        confusion=counts,
        missing=missing,
    )
