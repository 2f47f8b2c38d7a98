"""Classifiers on frozen features: fitted and scored on every split, and put into one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tats_ray.config.probe import ProbeSettings
from tats_ray.errors import ManifestError
from tats_ray.evaluation.accuracy import class_shares, confusion, top_share
from tats_ray.evaluation.logistic import EXACT, LogisticProblem, choose_l2, standardizer
from tats_ray.evaluation.splits import Split

TOP = 5  # the second accuracy, where there are more classes than that
_ROWS = 1024  # compared with all training videos at a time


@dataclass(frozen=True)
class LabelledVideos:
    """Everything that the classifiers see."""

    features: np.ndarray  # float32 [V, D]
    labels: np.ndarray  # int64 [V], places in `classes`
    classes: list[str]
    groups: list[str]  # one name per video; videos of a group stay together
    readable: np.ndarray  # bool [V]; the others have no features and take no part


@dataclass(frozen=True)
class SplitResult:
    """One classifier on one split."""

    split: str
    scores: np.ndarray  # float64 [m, classes]; -inf is no guess
    labels: np.ndarray  # int64 [m]
    trained_on: int
    majority: float  # share of the tested videos that are of the training part's largest class
    settings: dict[str, float]  # chosen on the way


@dataclass(frozen=True)
class _Part:
    """One split's videos on the device."""

    name: str
    known: Tensor  # float32 [n, D]
    known_labels: Tensor  # int64 [n]
    known_groups: list[str]
    asked: Tensor  # float32 [m, D]
    labels: np.ndarray  # int64 [m]


def evaluate(
    settings: ProbeSettings, videos: LabelledVideos, splits: Sequence[Split], device: torch.device
) -> dict[str, Any]:
    """Fits and scores the classifiers that are asked for.

    Returns:
        Method -> metrics, as `summarize` gives them.

    Raises:
        ManifestError: a split has nothing to train on or to test on.
    """
    parts = [_part(videos, split, device) for split in splits]
    classes = videos.classes
    return {
        method: summarize(
            [_classify(method, settings, part, len(classes)) for part in parts], classes
        )
        for method in settings.methods
    }


def summarize(results: Sequence[SplitResult], classes: list[str]) -> dict[str, Any]:
    """Means and sample deviations over splits; class shares and confusion over all their videos."""
    counts = np.sum([confusion(result.scores, result.labels) for result in results], axis=0)
    shares: dict[str, list[float]] = {
        "top1": [top_share(result.scores, result.labels, 1) for result in results],
        "majority": [result.majority for result in results],
    }
    if len(classes) > TOP:
        shares[f"top{TOP}"] = [top_share(result.scores, result.labels, TOP) for result in results]
    metrics: dict[str, Any] = {name: float(np.mean(values)) for name, values in shares.items()}
    if len(results) > 1:
        metrics |= {
            f"{name}_deviation": float(np.std(values, ddof=1)) for name, values in shares.items()
        }
    splits = [
        {
            "name": result.split,
            "trained_on": result.trained_on,
            "tested_on": len(result.labels),
            **{name: values[place] for name, values in shares.items()},
            **result.settings,
        }
        for place, result in enumerate(results)
    ]
    by_class = dict(zip(classes, class_shares(counts), strict=True))
    return metrics | {"splits": splits, "classes": by_class, "confusion": counts.tolist()}


def neighbour_votes(
    known: Tensor, labels: Tensor, asked: Tensor, classes: int, count: int, temperature: float
) -> Tensor:
    """Votes of the k nearest neighbours by cosine similarity.

    As in DINO (Caron et al. 2021, arXiv:2104.14294, after Wu et al. 2018, arXiv:1805.01978): each
    of the k most similar training videos votes for its class with weight
    exp(similarity / temperature).

    Args:
        known: float [n, D], training features, of classes `labels`, int64 [n].
        asked: float [m, D].

    Returns:
        float [m, classes]; -inf for classes without a vote, which are no guesses at all.
    """
    memory = F.normalize(known, dim=1)
    votes = []
    for rows in F.normalize(asked, dim=1).split(_ROWS):
        similarity, nearest = (rows @ memory.T).topk(min(count, len(known)), dim=1)
        weights = torch.exp(similarity / temperature)
        total = weights.new_zeros((len(rows), classes))
        total.scatter_add_(1, labels[nearest], weights)
        votes.append(torch.where(total > 0, total, -torch.inf))
    return torch.cat(votes)


def _part(videos: LabelledVideos, split: Split, device: torch.device) -> _Part:
    train, test = (rows[videos.readable[rows]] for rows in (split.train, split.test))
    if not len(train) or not len(test):
        raise ManifestError(
            f"split '{split.name}': {len(train)} videos to train on and {len(test)} to test on can "
            "be decoded"
        )
    return _Part(
        name=split.name,
        known=torch.from_numpy(videos.features[train]).to(device),
        known_labels=torch.from_numpy(videos.labels[train]).to(device),
        known_groups=[videos.groups[row] for row in train],
        asked=torch.from_numpy(videos.features[test]).to(device),
        labels=videos.labels[test],
    )


def _classify(method: str, settings: ProbeSettings, part: _Part, classes: int) -> SplitResult:
    known, labels, asked = part.known, part.known_labels, part.asked
    chosen = {}
    if method == "knn":
        count, temperature = settings.neighbours, settings.temperature
        scores = neighbour_votes(known, labels, asked, classes, count, temperature)
    else:
        l2 = choose_l2(known, labels, part.known_groups, settings.l2, settings.seed)
        scale = standardizer(known)
        model = LogisticProblem(scale(known), labels).solve(l2, EXACT)
        scores = model.scores(scale(asked), classes)
        chosen = {"l2": l2, "gradient": model.gradient}
    largest = int(torch.bincount(labels).argmax())
    return SplitResult(
        split=part.name,
        scores=scores.double().cpu().numpy(),
        labels=part.labels,
        trained_on=len(known),
        majority=float((part.labels == largest).mean()),
        settings=chosen,
    )
