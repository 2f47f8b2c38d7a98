"""Accuracies and confusion out of classifiers' scores."""

from __future__ import annotations

import numpy as np


def top_share(scores: np.ndarray, labels: np.ndarray, count: int) -> float:
    """Share of rows whose class is among the `count` best guesses.

    Args:
        scores: float [n, classes]; -inf is no guess.
        labels: int64 [n].
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    hit = (best == labels[:, None]) & np.isfinite(np.take_along_axis(scores, best, axis=1))
    return float(hit.any(axis=1).mean())


def confusion(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often each class (row) was taken for each (column), int64 [classes, classes]."""
    counts = np.zeros((scores.shape[1], scores.shape[1]), dtype=np.int64)
    np.add.at(counts, (labels, scores.argmax(axis=1)), 1)
    return counts


def class_shares(counts: np.ndarray) -> list[float | None]:
    """Share of each class's videos that were recognised; None for a class without videos."""
    totals = counts.sum(axis=1)
    return [
        float(right / total) if total else None
        for right, total in zip(counts.diagonal(), totals, strict=True)
    ]
