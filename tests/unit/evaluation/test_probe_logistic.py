"""The linear probe against Newton's method and scikit-learn, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from tats_ray.config.probe import ProbeSettings
from tats_ray.evaluation import logistic, probe
from tats_ray.evaluation.logistic import (
    EXACT,
    LogisticProblem,
    choose_l2,
    standardizer,
)
from tats_ray.evaluation.probe import LabelledVideos, SplitResult, evaluate, summarize
from tats_ray.evaluation.splits import Place, fold_splits

CPU = torch.device("cpu")


def _data(rows, width, classes, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, width)) @ rng.normal(size=(width, width))
    truth = features @ rng.normal(size=(width, classes)) / np.sqrt(width)
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    labels[:classes] = np.arange(classes)
    return features, labels


def _newton(features, labels, classes, l2):
    """Full Newton steps on the same objective, in numpy; returns weights and biases."""
    rows, width = features.shape
    design = np.hstack([features, np.ones((rows, 1))])
    penalty = np.kron(np.eye(classes), np.diag([l2] * width + [1e-12]))
    hot = np.eye(classes)[labels]
    theta = np.zeros((classes, width + 1))
    for _ in range(60):
        logits = design @ theta.T
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        gradient = ((shares - hot).T @ design / rows).ravel() + penalty @ theta.ravel()
        curvature = np.einsum("nc,cd->ncd", shares, np.eye(classes)) - np.einsum(
            "nc,nd->ncd", shares, shares
        )
        hessian = np.einsum("ncd,ni,nj->cidj", curvature, design, design) / rows
        hessian = hessian.reshape(penalty.shape) + penalty
        theta -= np.linalg.lstsq(hessian, gradient, rcond=1e-14)[0].reshape(theta.shape)
    return theta[:, :-1].T, theta[:, -1] - theta[:, -1].mean()


@pytest.mark.parametrize(("rows", "width"), [(80, 5), (12, 20)])  # more videos, more features
@pytest.mark.parametrize("l2", [1e-3, 0.3])
def test_the_solution_is_newtons(rows, width, l2):
    features, labels = _data(rows, width, 3)
    features = standardizer(torch.from_numpy(features))(torch.from_numpy(features))
    model = LogisticProblem(features, torch.from_numpy(labels)).solve(l2, 1e-9)
    weights, biases = _newton(features.numpy(), labels, 3, l2)
    np.testing.assert_allclose(model.weights, weights, atol=2e-6)
    np.testing.assert_allclose(model.biases - model.biases.mean(), biases, atol=2e-6)


@pytest.mark.parametrize(
    ("rows", "width", "classes", "absent"),
    [(200, 6, 3, []), (30, 90, 4, []), (120, 40, 7, [1, 6]), (90, 12, 2, [])],
)
@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_scikit_learn_finds_the_same(rows, width, classes, absent, l2):
    """Also with more features than videos, and with classes that no video is of."""
    features, labels = _data(rows, width, classes)
    kept = ~np.isin(labels, absent)
    features, labels = torch.from_numpy(features[kept]), labels[kept]
    features = standardizer(features)(features)
    model = LogisticProblem(features, torch.from_numpy(labels)).solve(l2, 1e-9)
    # Of two classes it penalises the difference of our weights, whose square is twice as large.
    penalty = l2 / 2 if classes == 2 else l2
    oracle = LogisticRegression(C=1 / (len(labels) * penalty), tol=1e-10, solver="newton-cg")
    oracle.fit(features.numpy(), labels)
    assert model.present.tolist() == oracle.classes_.tolist()
    coefficients, intercepts = oracle.coef_, oracle.intercept_ - oracle.intercept_.mean()
    weights, biases = model.weights.numpy().T, (model.biases - model.biases.mean()).numpy()
    if classes == 2:
        weights, biases = weights[1:] - weights[:1], biases[1:] - biases[:1]
        intercepts = oracle.intercept_
    np.testing.assert_allclose(weights, coefficients, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(biases, intercepts, rtol=1e-5, atol=1e-5)
    shares = model.scores(features, classes).softmax(dim=1).numpy()
    np.testing.assert_allclose(
        shares[:, oracle.classes_], oracle.predict_proba(features.numpy()), atol=1e-5
    )
    assert (shares[:, absent] == 0).all()


def test_the_gradient_is_zero_at_the_solution_and_nowhere_near_it():
    features, labels = (torch.from_numpy(part) for part in _data(50, 30, 4))
    features = standardizer(features)(features)
    model = LogisticProblem(features, labels).solve(0.01, EXACT)

    def gradient(weights, l2):
        weights = weights.clone().requires_grad_()
        loss = F.cross_entropy(features @ weights + model.biases, labels)
        (loss + l2 / 2 * weights.square().sum()).backward()
        return weights.grad.abs().max().item()

    assert gradient(model.weights, 0.01) == pytest.approx(model.gradient, abs=1e-5)
    assert gradient(model.weights, 0.01) < 2e-5
    assert gradient(model.weights, 0.02) > 1e-3
    assert gradient(1.1 * model.weights, 0.01) > 1e-3


def test_a_class_that_was_never_trained_on_is_never_guessed():
    features, labels = (torch.from_numpy(part) for part in _data(40, 3, 4))
    known = labels != 1
    model = LogisticProblem(features[known], labels[known]).solve(0.1, EXACT)
    scores = model.scores(features, 5)
    assert torch.isneginf(scores[:, [1, 4]]).all()
    assert torch.isfinite(scores[:, [0, 2, 3]]).all()


def test_statistics_come_from_the_training_part_alone():
    train = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    scale = standardizer(train)
    torch.testing.assert_close(scale(train), torch.tensor([[-1.0, 0], [1, 0]]).double())
    assert scale(torch.tensor([[5.0, 9.0]])).tolist() == [[3.0, 0.0]]


def test_no_statistic_is_taken_from_videos_that_are_asked(monkeypatch):
    seen = []

    def watched(features):
        seen.append(len(features))
        return standardizer(features)

    monkeypatch.setattr(logistic, "standardizer", watched)
    monkeypatch.setattr(probe, "standardizer", watched)
    features, labels = _data(60, 4, 3)
    splits = _splits(np.repeat([0, 1], [40, 20]))
    evaluate(_section(method="linear", l2=[0.1, 1.0]), _videos(features, labels), splits, CPU)
    first, second = seen[:6], seen[6:]  # four fifths five times, and the whole training part
    assert (sum(first[:5]), first[5]) == (4 * 20, 20)
    assert (sum(second[:5]), second[5]) == (4 * 40, 40)


def test_float_noise_on_a_constant_is_no_feature():
    noisy = torch.full((100, 1), 0.3) * (1 + 1e-7 * torch.randn(100, 1))
    assert standardizer(noisy).scale.item() == 0


def test_the_penalty_is_chosen_by_what_generalises():
    """Labels that follow the group alone: only a choice that mixes groups would trust them."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 6)
    labels = torch.from_numpy(rng.integers(0, 2, 20)[groups])
    features = torch.from_numpy(
        rng.normal(size=(20, 30))[groups] + 0.05 * rng.normal(size=(120, 30))
    )
    alone = [str(row) for row in range(120)]
    together = [str(group) for group in groups]
    grid = [1e-3, 1.0, 1e3]
    assert choose_l2(features, labels, alone, grid, 0) == 1e-3
    assert choose_l2(features, labels, together, grid, 0) == 1e3
    easy = F.one_hot(labels).double()
    assert choose_l2(easy, labels, together, grid, 0) == 1.0  # all are right: the largest that is


def _videos(features, labels, readable=None):
    classes = [f"class {number}" for number in range(labels.max() + 1)]
    everyone = np.ones(len(labels), dtype=bool)
    return LabelledVideos(
        features=features.astype(np.float32),
        labels=labels,
        classes=classes,
        groups=[str(row) for row in range(len(labels))],
        readable=everyone if readable is None else readable,
    )


def _section(**values):
    return ProbeSettings(checkpoint="x", train="x", folds="x", **values)


def _splits(folds):
    return fold_splits([Place(str(fold), str(row)) for row, fold in enumerate(folds)])


def test_a_constant_feature_gives_the_largest_class():
    labels = np.array([0, 0, 0, 1, 2] * 8)
    splits = _splits(np.repeat(np.arange(4), 10))
    result = evaluate(_section(), _videos(np.ones((40, 6)), labels), splits, CPU)
    assert result["linear"]["top1"] == result["linear"]["majority"] == pytest.approx(0.6)
    assert result["linear"]["top1_deviation"] == pytest.approx(0)
    assert result["linear"]["classes"] == {"class 0": 1.0, "class 1": 0.0, "class 2": 0.0}


def test_a_feature_that_tells_the_label_gives_everything():
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(7), 12)
    features = np.hstack([np.eye(7)[labels] * 6, rng.normal(size=(84, 5))])
    splits = _splits(np.repeat(np.arange(3), 28))
    result = evaluate(_section(neighbours=5), _videos(features, labels), splits, CPU)
    for method in ("linear", "knn"):
        assert result[method]["top1"] == result[method]["top5"] == 1.0
        assert result[method]["confusion"] == (12 * np.eye(7, dtype=int)).tolist()


def test_missing_videos_take_no_part():
    labels = np.array([0, 1] * 10)
    features = np.eye(2)[labels] + 0.01 * np.random.default_rng(0).normal(size=(20, 2))
    features[[3, 12]] = 1e30  # would spoil everything
    readable = np.ones(20, dtype=bool)
    readable[[3, 12]] = False
    videos = _videos(features, labels, readable)
    result = evaluate(_section(), videos, _splits(np.repeat([0, 1], 10)), CPU)
    assert [split["tested_on"] for split in result["linear"]["splits"]] == [9, 9]
    assert result["linear"]["top1"] == result["knn"]["top1"] == 1.0


def test_mean_and_deviation_are_over_folds():
    right, wrong = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    results = [
        SplitResult(name, np.concatenate(scores), np.zeros(len(scores), dtype=int), 9, 1.0, {})
        for name, scores in [("a", [right, wrong, wrong, wrong]), ("b", [right, right])]
    ]
    metrics = summarize(results, ["x", "y"])
    assert metrics["top1"] == 0.625  # folds count alike, not videos
    assert metrics["top1_deviation"] == pytest.approx(np.std([0.25, 1.0], ddof=1))
    assert metrics["classes"] == {"x": 0.5, "y": None}
    assert metrics["confusion"] == [[3, 3], [0, 0]]
    assert "top5" not in metrics
    assert "top1_deviation" not in summarize(results[:1], ["x", "y"])
