"""Statistics over the trials of a comparison: means, spreads and differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class TrialResult:
    """What is kept of one finished trial."""

    arm: str
    ratio: float
    seed: int
    steps: int  # of pre-training
    gflops: float  # operations per pre-training step / 1e9, without decoding
    seconds: float  # per pre-training step, as it ran
    # accuracies (`linear`, `knn`, `finetune`; `<probe>_linear` with several probes), last loss,
    # enrichment
    metrics: dict[str, float]
    curve: list[dict[str, float]]  # enrichment over time: {"step", "moving", "static"} each


@dataclass(frozen=True)
class Spread:
    """Mean and sample deviation over seeds; the deviation of a single one is nan."""

    mean: float
    deviation: float
    count: int


@dataclass(frozen=True)
class PairedDifference:
    """Mean over seeds of one arm - another, with the two-sided 95 % interval of Student's t; a
    single seed has an infinite one."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(np.mean(values)), deviation, len(values))


def measures(metric: str, names: Iterable[str]) -> list[str]:
    """Those of these names that are a metric, or that metric of one of several probes."""
    return [name for name in names if name == metric or name.endswith(f"_{metric}")]


def paired_difference(one: dict[int, float], other: dict[int, float]) -> PairedDifference | None:
    """Difference of two metrics by seed, over the seeds that both have; None if there are none."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None
    differences = spread([one[seed] - other[seed] for seed in seeds])
    if differences.count == 1:
        return PairedDifference(differences.mean, -math.inf, math.inf, 1)
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, differences.count - 1))
    reach = quantile * differences.deviation / math.sqrt(differences.count)
    return PairedDifference(
        differences.mean, differences.mean - reach, differences.mean + reach, differences.count
    )


class Comparison:
    """Finished trials by arm and ratio."""

    def __init__(self, results: Sequence[TrialResult]) -> None:
        self.results = list(results)

    def sort(self, arms: Iterable[str]) -> None:
        """Into the order of ratios, then of these arms, then of seeds."""
        order = list(arms)
        self.results.sort(key=lambda result: (result.ratio, order.index(result.arm), result.seed))

    def cells(self) -> list[tuple[float, str]]:
        """Ratio and arm of every cell with a result, as they come."""
        return list(dict.fromkeys((result.ratio, result.arm) for result in self.results))

    def of(self, ratio: float, arm: str) -> list[TrialResult]:
        """The trials of a cell."""
        return [result for result in self.results if (result.ratio, result.arm) == (ratio, arm)]

    def by_seed(self, ratio: float, arm: str, metric: str) -> dict[int, float]:
        """Seed -> metric, of the trials of a cell that have it."""
        return {
            result.seed: result.metrics[metric]
            for result in self.of(ratio, arm)
            if metric in result.metrics
        }

    def names(self) -> list[str]:
        """Every metric that any trial has."""
        return list(dict.fromkeys(name for one in self.results for name in one.metrics))

    def summary(self, ratio: float, arm: str) -> dict[str, Spread]:
        """Every metric of a cell, and what its trials cost."""
        trials = self.of(ratio, arm)
        names = dict.fromkeys(name for trial in trials for name in trial.metrics)
        spreads = {name: spread(list(self.by_seed(ratio, arm, name).values())) for name in names}
        costs = {
            "steps": [float(trial.steps) for trial in trials],
            "tflops": [trial.gflops * trial.steps / 1000 for trial in trials],
            "seconds": [trial.seconds * trial.steps for trial in trials],
        }
        return spreads | {name: spread(values) for name, values in costs.items()}

    def mean_curve(self, ratio: float, arm: str) -> dict[str, Any]:
        """Enrichment over time, averaged over the seeds that reached each step: lists `step`,
        `moving` and `static`."""
        by_step: dict[int, list[dict[str, float]]] = {}
        for trial in self.of(ratio, arm):
            for point in trial.curve:
                by_step.setdefault(int(point["step"]), []).append(point)
        steps = sorted(by_step)
        return {"step": steps} | {
            name: [float(np.mean([point[name] for point in by_step[step]])) for step in steps]
            for name in ("moving", "static")
        }
