"""The result of a frozen-feature evaluation, for people: tables and confusion pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

_LISTED_CLASSES = 20  # more are in the JSON file only
_LABELLED_CLASSES = 40  # names of more would overlap in the picture
_METRICS = {"top1": "top-1", "top5": "top-5", "majority": "largest class"}


def log_probe(results: dict[str, dict[str, Any]]) -> None:
    """Accuracies of each method, and of each class where there are few."""
    table = Table("", *results)
    for metric, label in _METRICS.items():
        cells = [_cell(result, metric) for result in results.values()]
        if any(cells):
            table.add_row(label, *cells)
    classes = next(iter(results.values()))["classes"]
    if len(classes) <= _LISTED_CLASSES:
        table.add_section()
        for name in classes:
            table.add_row(name, *(_percent(result["classes"][name]) for result in results.values()))
    Console(highlight=False).print(table)


def save_confusion(result: dict[str, Any], title: str, file: Path) -> None:
    """Shares of each true class (row) that were taken for each class (column)."""
    from matplotlib.figure import Figure

    counts, names = np.array(result["confusion"]), list(result["classes"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.35 * min(len(names), _LABELLED_CLASSES)
    figure = Figure(figsize=(side, side))
    axis = figure.subplots()
    shown = axis.imshow(shares, cmap="viridis", vmin=0.0, vmax=1.0)
    if len(names) <= _LABELLED_CLASSES:
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        for row, column in np.argwhere(counts):
            colour = "black" if shares[row, column] > 0.5 else "white"
            axis.text(column, row, str(counts[row, column]), ha="center", va="center",
                      fontsize=7, color=colour)  # fmt: skip
    axis.set_xlabel("taken for")
    axis.set_ylabel("is")
    axis.set_title(title, fontsize=9)
    figure.colorbar(shown, ax=axis, fraction=0.046)
    figure.savefig(file, dpi=100, bbox_inches="tight")


def _cell(result: dict[str, Any], metric: str) -> str:
    """`31.2 % ± 4.0`, empty where the metric is not known."""
    if metric not in result:
        return ""
    deviation = result.get(f"{metric}_deviation")
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return _percent(result[metric]) + spread


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
