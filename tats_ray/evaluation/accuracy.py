"""Accuracies and confusion out of classifiers' scores, and those of a whole test manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tats_ray.errors import TooManyBrokenVideosError
from tats_ray.evaluation.multi_view import TestVideo, VideoScore


@dataclass(frozen=True)
class Accuracy:
    """Shares of the videos that could be decoded; a missing one is neither right nor wrong."""

    videos: int
    top1: float
    top5: float
    per_class: dict[str, float | None]  # by class name; None for a class without videos
    confusion: np.ndarray  # int64 [classes, classes], true class by guessed class
    missing: list[tuple[str, str]]  # path and reason of every missing video

    @property
    def mean_class(self) -> float:
        """Mean over the classes that have videos."""
        return float(np.mean([share for share in self.per_class.values() if share is not None]))

    def metrics(self) -> dict[str, Any]:
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
    """Compares scores, one per video and in the same order, with class numbers int64 [videos].

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


def top_share(scores: np.ndarray, labels: np.ndarray, count: int) -> float:
    """Share of rows, float [n, classes], whose class is among the `count` best guesses.

    -inf is no guess, hence never a hit (scikit-learn's `top_k_accuracy_score` would rank it last
    and count it).
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    hit = (best == labels[:, None]) & np.isfinite(np.take_along_axis(scores, best, axis=1))
    return float(hit.any(axis=1).mean())


def confusion(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often each class (row) was taken for each (column), int64 [classes, classes]."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, scores.argmax(axis=1), labels=np.arange(scores.shape[1]))


def class_shares(counts: np.ndarray) -> list[float | None]:
    """Share of each class's videos that were recognised; None for a class without videos."""
    totals = counts.sum(axis=1)
    return [
        float(right / total) if total else None
        for right, total in zip(counts.diagonal(), totals, strict=True)
    ]
