"""The result of a comparison, for people: a table on the terminal, files to keep, plots."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tats_ray import __version__
from tats_ray.config.compare import CompareSettings
from tats_ray.evaluation.comparison import (
    Comparison,
    PairedDifference,
    Spread,
    measures,
    paired_difference,
)
from tats_ray.storage import replacing
from tats_ray.tracking.console import log_table
from tats_ray.tracking.html_page import (
    element,
    figure,
    join,
    paragraph,
    section,
    table,
    text,
    write_page,
)
from tats_ray.tracking.pictures import figure_in

_INCHES = (6.5, 4.5)  # of a plot
_ACCURACIES = ("linear", "knn", "finetune")
_PLAIN = {"moving": 2, "static": 2, "enrichment_ratio": 2, "loss": 4, "steps": 0, "tflops": 1}


def write_comparison(folder: Path, settings: CompareSettings, comparison: Comparison) -> list[Path]:
    """Writes `results.csv` (every trial), `results.md` (tables), the plots, and `results.html` with
    tables and plots on a page that stands alone; returns the files.

    Raises:
        StorageError: disk full or read-only; what was there before stays.
    """
    if not comparison.results:
        return []
    tables, trials = folder / "results.md", folder / "results.csv"
    header, rows = _rows(settings, comparison, [*_ACCURACIES, *_PLAIN])
    lines = [header, ["---"] * len(header), *rows]
    markdown = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    for file, content in ((tables, markdown), (trials, _csv(comparison))):
        with replacing(file) as aside:
            aside.write_text(content, encoding="utf-8")
    draw: dict[str, Callable[[Any, CompareSettings, Comparison], None]] = {}
    for measure in measures(settings.metric, comparison.names()):
        probe = "" if measure == settings.metric else f"_{measure}"
        for axis in ("ratio", "cost"):
            draw[f"accuracy_by_{axis}{probe}.png"] = partial(
                _draw_accuracy, metric=measure, by_cost=axis == "cost"
            )
    if any(result.curve for result in comparison.results):
        draw["enrichment.png"] = _draw_enrichment
    fills = [
        partial(_draw_all, fill=fill, settings=settings, comparison=comparison)
        for fill in draw.values()
    ]
    for name, draw_all in zip(draw, fills, strict=True):
        with figure_in(folder / name, *_INCHES) as drawn:
            draw_all(drawn)
    page = _write_page(folder / "results.html", header, rows, fills)
    return [tables, trials, page, *(folder / name for name in draw)]


def _write_page(
    file: Path, header: list[str], rows: list[list[str]], fills: Sequence[Callable[[Any], None]]
) -> Path:
    charts = element("div", join(figure(*_INCHES, fill) for fill in fills), "charts")
    words = (
        "Mean ± sample deviation over seeds; mean differences of paired seeds with their 95 % "
        "interval, starred where it excludes zero. Accuracies are in per cent."
    )
    name = file.parent.absolute().name
    parts = [
        element("h1", text(name)),
        section("Results", paragraph(words), table(header, rows)),
        section("Plots", charts),
        paragraph(f"Written by tats_ray {__version__}. results.csv has every trial.", "small"),
    ]
    return write_page(file, f"{name}: comparison", parts)


def log_comparison(title: str, settings: CompareSettings, comparison: Comparison) -> None:
    """A narrow table on the terminal; the files have every metric."""
    if not comparison.results:
        return
    wanted = list(dict.fromkeys([settings.metric, "moving", "static"]))
    log_table(title, *_rows(settings, comparison, wanted))


def _rows(
    settings: CompareSettings, comparison: Comparison, wanted: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Mean ± deviation of every cell, and the paired differences with their 95 % intervals.

    Args:
        wanted: metrics to show, where any cell has them.
    """
    known = dict.fromkeys(name for cell in comparison.cells() for name in comparison.summary(*cell))
    metrics = [name for metric in wanted for name in measures(metric, known)]
    compared = [
        (measure, reference)
        for measure in measures(settings.metric, known)
        for reference in settings.references
    ]
    header = ["ratio", "arm", "seeds", *metrics]
    header += [f"{measure} - {reference}" for measure, reference in compared]
    rows = []
    for ratio, arm in comparison.cells():
        summary = comparison.summary(ratio, arm)
        row = [f"{ratio:g}", arm, str(len(comparison.of(ratio, arm)))]
        row += [_cell(name, summary[name]) if name in summary else "-" for name in metrics]
        for measure, reference in compared:
            pair = (comparison.by_seed(ratio, name, measure) for name in (arm, reference))
            difference = paired_difference(*pair)
            row.append("" if arm == reference else _difference(difference, _scale(measure)))
        rows.append(row)
    return header, rows


def _is_accuracy(metric: str) -> bool:
    return metric.rpartition("_")[2] in _ACCURACIES


def _scale(metric: str) -> int:
    """Accuracies are shown in per cent."""
    return 100 if _is_accuracy(metric) else 1


def _cell(name: str, spread: Spread) -> str:
    digits, scale = _PLAIN.get(name, 1), _scale(name)
    mean = f"{scale * spread.mean:.{digits}f}"
    if math.isnan(spread.deviation) or spread.deviation == 0:
        return mean
    return f"{mean} ± {scale * spread.deviation:.{digits}f}"


def _difference(difference: PairedDifference | None, scale: int) -> str:
    """`+3.1 [1.2, 5.0]`, with a star where the interval excludes zero."""
    if difference is None:
        return "-"
    digits = 1 if scale > 1 else 2
    mean = f"{scale * difference.mean:+.{digits}f}"
    if math.isinf(difference.low):
        return mean
    low, high = (f"{scale * end:.{digits}f}" for end in (difference.low, difference.high))
    return f"{mean} [{low}, {high}]{' *' if difference.excludes_zero else ''}"


def _csv(comparison: Comparison) -> str:
    names = comparison.names()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["arm", "ratio", "seed", "steps", "gflops_per_step", "seconds_per_step", *names]
    )
    for one in comparison.results:
        costs = [f"{one.gflops:.4f}", f"{one.seconds:.4f}"]
        metrics = [f"{one.metrics[name]:.5f}" if name in one.metrics else "" for name in names]
        writer.writerow([one.arm, one.ratio, one.seed, one.steps, *costs, *metrics])
    return text.getvalue()


def _draw_accuracy(
    axis: Any, settings: CompareSettings, comparison: Comparison, *, metric: str, by_cost: bool
) -> None:
    """Mean and deviation of each arm's cells, over the mask ratio or over the cost."""
    scale = _scale(metric)
    for arm in settings.arms:
        ratios = [ratio for ratio, name in comparison.cells() if name == arm]
        cells = {ratio: comparison.summary(ratio, arm) for ratio in ratios}
        cells = {ratio: cell for ratio, cell in cells.items() if metric in cell}
        places = [cell["tflops"].mean if by_cost else ratio for ratio, cell in cells.items()]
        means = [scale * cell[metric].mean for cell in cells.values()]
        deviations = [scale * cell[metric].deviation for cell in cells.values()]
        axis.errorbar(
            places, means, yerr=[0.0 if math.isnan(bar) else bar for bar in deviations],
            marker="o", capsize=3, linestyle="none" if by_cost else "-", label=arm,
        )  # fmt: skip
        if by_cost:
            for ratio, place, mean in zip(cells, places, means, strict=True):
                axis.annotate(f" {ratio:g}", (place, mean), fontsize=7)
    axis.set_xlabel("pre-training, TFLOP" if by_cost else "share of masked tokens")
    shown = metric.replace("_", " ")
    axis.set_ylabel(f"{shown} accuracy, %" if _is_accuracy(metric) else shown)


def _draw_enrichment(axis: Any, settings: CompareSettings, comparison: Comparison) -> None:
    """Moving objects as lines, static distractors dashed, at the highest ratio."""
    ratio = max(settings.ratios)
    for arm in settings.arms:
        curve = comparison.mean_curve(ratio, arm)
        (moving,) = axis.plot(curve["step"], curve["moving"], label=arm)
        axis.plot(curve["step"], curve["static"], color=moving.get_color(), linestyle="--")
    axis.axhline(1.0, color="grey", linewidth=0.5)
    axis.set_xlabel("step")
    axis.set_ylabel(f"enrichment at ratio {ratio:g} (dashed: static distractors)")


def _draw_all(
    drawn: Any,
    fill: Callable[[Any, CompareSettings, Comparison], None],
    settings: CompareSettings,
    comparison: Comparison,
) -> None:
    from matplotlib import color_sequences

    axis = drawn.subplots()
    axis.set_prop_cycle(color=color_sequences["tab10" if len(settings.arms) <= 10 else "tab20"])
    fill(axis, settings, comparison)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
