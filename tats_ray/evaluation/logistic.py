"""Multinomial logistic regression on standardised features, solved to the optimum.

The objective is mean cross-entropy + l2 / 2 x squared norm of the weights; biases are free. It is
strictly convex in the weights, so the result depends on no learning rate, schedule or seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tats_ray.evaluation.splits import inner_parts

INNER_PARTS = 5
EXACT = 1e-6  # gradients to stop at, along the scaled axes: for the result, and
_ROUGH = 1e-5  # to compare penalties, which is where the time goes
_ITERATIONS = 2000
_FLOAT32_STEP = 1e-6  # relative deviation below which a float32 feature counts as constant


@dataclass(frozen=True)
class Standardizer:
    """Zero mean and unit deviation on the features that it was made from; constants become 0."""

    mean: Tensor  # float64 [D]
    scale: Tensor  # float64 [D], 0 for constants

    def __call__(self, features: Tensor) -> Tensor:
        """[n, D] -> float64 [n, D]."""
        return (features.double() - self.mean) * self.scale


def standardizer(features: Tensor) -> Standardizer:
    """Statistics of the training part [n, D]."""
    wide = features.double()
    deviation, mean = torch.std_mean(wide, dim=0, correction=0)
    constant = deviation <= _FLOAT32_STEP * mean.abs()
    return Standardizer(mean, torch.where(constant, 0.0, 1 / deviation))


@dataclass(frozen=True)
class LogisticModel:
    """Weights of a fitted classifier."""

    weights: Tensor  # float64 [D, K], of the classes that were trained on
    biases: Tensor  # float64 [K]
    present: Tensor  # int64 [K], which classes these are
    gradient: float  # largest entry of the objective's gradient where the solver stopped

    def scores(self, features: Tensor, classes: int) -> Tensor:
        """Standardised features [n, D] -> logits [n, classes]; -inf where never trained on."""
        logits = features.new_full((len(features), classes), -torch.inf)
        logits[:, self.present] = features @ self.weights + self.biases
        return logits


class LogisticProblem:
    """One training part, to be solved for several penalties.

    The features are turned onto their principal axes and each axis is scaled by the curvature of
    the objective along it. That changes neither the objective nor its optimum, but L-BFGS needs
    tens of steps instead of thousands, and with fewer videos than features the problem shrinks.
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        """Args: features: float64 [n, D], standardised; labels: int64 [n]."""
        self._present, self._targets = torch.unique(labels, return_inverse=True)
        tall = len(features) > features.shape[1]
        square = torch.linalg.qr(features, mode="r").R if tall else features
        _, singular, self._axes = torch.linalg.svd(square, full_matrices=False)
        self._curvature = singular.square() / len(features)  # variance along each axis
        self._turned = features @ self._axes.T

    def solve(self, l2: float, tolerance: float) -> LogisticModel:
        """The optimum for one penalty, up to a gradient of `tolerance`."""
        classes = len(self._present)
        stretch = (self._curvature / classes + l2).rsqrt()[:, None]
        inputs = self._turned * stretch.T
        weights = inputs.new_zeros((inputs.shape[1], classes), requires_grad=True)
        biases = inputs.new_zeros(classes, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weights, biases],
            max_iter=_ITERATIONS,
            tolerance_grad=tolerance,
            tolerance_change=1e-16,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            solver.zero_grad()
            loss = F.cross_entropy(inputs @ weights + biases, self._targets)
            loss = loss + l2 / 2 * (stretch * weights).square().sum()
            loss.backward()
            return loss

        solver.step(objective)
        objective()
        assert weights.grad is not None
        assert biases.grad is not None
        gradient = torch.cat([(weights.grad / stretch).flatten(), biases.grad]).abs().max().item()
        found = self._axes.T @ (stretch * weights.detach())
        return LogisticModel(found, biases.detach(), self._present, gradient)


def choose_l2(
    features: Tensor, labels: Tensor, groups: Sequence[str], grid: Sequence[float], seed: int
) -> float:
    """The penalty that gets most videos right in a cross-validation inside the training part.

    Groups stay together, and each part is standardised by the statistics of the others. Of equal
    penalties the largest wins.

    Args:
        features: [n, D], not standardised.
        groups: one name per video.
    """
    if len(grid) == 1:
        return grid[0]
    classes = int(labels.max()) + 1
    rows = inner_parts(labels.cpu().numpy(), groups, INNER_PARTS, seed)
    parts = torch.from_numpy(rows).to(labels.device)
    right = np.zeros(len(grid), dtype=np.int64)
    for part in parts.unique():
        known, asked = parts != part, parts == part
        scale = standardizer(features[known])
        problem = LogisticProblem(scale(features[known]), labels[known])
        held_out = scale(features[asked])
        for place, l2 in enumerate(grid):
            guesses = problem.solve(l2, _ROUGH).scores(held_out, classes).argmax(dim=1)
            right[place] += int((guesses == labels[asked]).sum())
    return max(l2 for l2, count in zip(grid, right, strict=True) if count == right.max())
