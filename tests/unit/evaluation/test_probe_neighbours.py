"""k-nearest neighbours against a loop over pairs, and the shares that follow from scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tats_ray.evaluation import probe
from tats_ray.evaluation.accuracy import class_shares, confusion, top_share
from tats_ray.evaluation.probe import neighbour_votes


def _loop(known, labels, asked, classes, count, temperature):
    votes = np.full((len(asked), classes), -np.inf)
    for row, query in enumerate(asked):
        ranked = sorted(
            (float(query @ other / (np.linalg.norm(query) * np.linalg.norm(other))), label)
            for other, label in zip(known, labels, strict=True)
        )
        for similarity, label in ranked[::-1][:count]:
            votes[row, label] = max(votes[row, label], 0.0) + math.exp(similarity / temperature)
    return votes


@pytest.mark.parametrize("count", [1, 20, 500])  # also more than there are
def test_votes_are_those_of_the_loop(monkeypatch, count):
    monkeypatch.setattr(probe, "_ROWS", 7)  # several pieces
    rng = np.random.default_rng(0)
    known, asked = rng.normal(size=(60, 9)), rng.normal(size=(25, 9))
    labels = rng.integers(0, 6, 60)
    got = neighbour_votes(
        torch.from_numpy(known), torch.from_numpy(labels), torch.from_numpy(asked), 8, count, 0.07
    )
    np.testing.assert_allclose(got, _loop(known, labels, asked, 8, count, 0.07), rtol=1e-9)
    assert torch.isneginf(got[:, 6:]).all()


def test_a_near_neighbour_outvotes_several_far_ones():
    known = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    labels = torch.tensor([0, 1, 1])
    asked = torch.tensor([[5.0, 0.5]])
    assert neighbour_votes(known, labels, asked, 2, 3, 0.07).argmax().item() == 0
    assert neighbour_votes(known, labels, asked, 2, 3, 100.0).argmax().item() == 1


def test_top_shares():
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [1, -np.inf, -np.inf]])
    labels = np.array([0, 1, 2, 2])
    assert top_share(scores, labels, 1) == 0.25
    assert top_share(scores, labels, 2) == 0.5
    assert top_share(scores, labels, 3) == 0.75  # the last one's class was no guess at all


def test_confusion_and_class_shares():
    scores = np.array([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]])
    counts = confusion(scores, np.array([0, 0, 1]))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert class_shares(counts) == [0.5, 1.0, None]
