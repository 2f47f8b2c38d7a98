"""Statistics of a comparison against metrics worked out by hand."""

from __future__ import annotations

import math

import pytest

from tats_ray.config.compare import CompareSettings
from tats_ray.evaluation.comparison import Comparison, TrialResult, paired_difference, spread
from tats_ray.tracking.comparison_report import write_comparison


def _trial(arm: str, seed: int, linear: float, ratio: float = 0.9, **changes) -> TrialResult:
    given = {"steps": 10, "gflops": 2.0, "seconds": 0.5, "curve": []} | changes
    return TrialResult(arm, ratio, seed, metrics={"linear": linear}, **given)


def test_spread_is_mean_and_sample_deviation():
    found = spread([1.0, 2.0, 6.0])
    assert (found.mean, found.count) == (3.0, 3)
    assert found.deviation == pytest.approx(math.sqrt(7.0))
    assert math.isnan(spread([4.0]).deviation)


def test_difference_is_paired_by_seed_and_has_students_interval():
    """Differences 1, 2 and 3: deviation 1, t of 2 degrees at 97.5 % is 4.3027 in any table."""
    one = {0: 0.0, 1: 7.0, 2: 50.0, 9: 1.0}
    other = {2: 47.0, 0: -1.0, 1: 5.0, 8: 3.0}
    found = paired_difference(one, other)
    assert found.mean == pytest.approx(2.0)
    assert found.count == 3
    assert found.high - found.mean == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert not found.excludes_zero


def test_a_constant_difference_excludes_zero_in_its_own_direction():
    up, down = ({seed: 0.1 * seed + shift for seed in range(3)} for shift in (0.5, -0.5))
    middle = {seed: 0.1 * seed for seed in range(3)}
    assert paired_difference(up, middle).excludes_zero
    assert paired_difference(down, middle).excludes_zero
    assert paired_difference(down, middle).mean == pytest.approx(-0.5)


def test_one_seed_tells_no_interval_and_no_common_seed_nothing():
    assert paired_difference({0: 3.0}, {0: 1.0}).mean == 2.0
    assert not paired_difference({0: 3.0}, {0: 1.0}).excludes_zero
    assert paired_difference({0: 3.0}, {1: 1.0}) is None


def test_cells_keep_ratios_and_arms_apart():
    results = [
        _trial("b", 1, 0.5), _trial("a", 0, 0.1), _trial("b", 0, 0.3), _trial("b", 0, 0.9, 0.75),
    ]  # fmt: skip
    comparison = Comparison(results)
    comparison.sort(["a", "b"])
    assert comparison.cells() == [(0.75, "b"), (0.9, "a"), (0.9, "b")]
    assert comparison.by_seed(0.9, "b", "linear") == {0: 0.3, 1: 0.5}
    summary = comparison.summary(0.9, "b")
    assert summary["linear"].mean == pytest.approx(0.4)
    assert summary["tflops"].mean == pytest.approx(2.0 * 10 / 1000)
    assert summary["seconds"].mean == pytest.approx(5.0)


def test_curves_average_the_seeds_that_reached_a_step():
    def points(*moving):
        return [
            {"step": 5 * place, "moving": value, "static": 1.0}
            for place, value in enumerate(moving)
        ]

    comparison = Comparison(
        [_trial("a", 0, 0.1, curve=points(1, 2, 3)), _trial("a", 1, 0.1, curve=points(3, 4))]
    )
    curve = comparison.mean_curve(0.9, "a")
    assert curve == {"step": [0, 5, 10], "moving": [2.0, 3.0, 3.0], "static": [1.0, 1.0, 1.0]}


def test_each_of_several_probes_has_its_column_difference_and_plots(tmp_path):
    arms = {"random": ["masking.system=random"], "tube": ["masking.system=tube"]}
    settings = CompareSettings(arms=arms, ratios=[0.9], seeds=[0, 1], references=["random"])
    results = [
        TrialResult(arm, 0.9, seed, 10, 2.0, 0.5, {"a_linear": one, "b_linear": other}, [])
        for arm, seed, one, other in [
            ("random", 0, 0.1, 0.5), ("random", 1, 0.2, 0.6),
            ("tube", 0, 0.2, 0.5), ("tube", 1, 0.3, 0.4),
        ]
    ]  # fmt: skip
    files = write_comparison(tmp_path, settings, Comparison(results))
    header, _, _, tube = (tmp_path / "results.md").read_text().splitlines()
    assert [cell.strip() for cell in header.split("|")[4:-1]] == [
        "a_linear", "b_linear", "steps", "tflops", "a_linear - random", "b_linear - random",
    ]  # fmt: skip
    assert "+10.0" in tube.split("|")[-3]
    assert "-10.0" in tube.split("|")[-2]
    assert {file.name for file in files if file.suffix == ".png"} == {
        f"accuracy_by_{axis}_{probe}_linear.png" for axis in ("ratio", "cost") for probe in "ab"
    }
