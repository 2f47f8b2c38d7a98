"""The result of a frozen-feature evaluation, for people: tables and confusion pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.errors import one_line
from tats_ray.tracking.console import log_table
from tats_ray.tracking.pictures import figure_in

_LISTED_CLASSES = 20  # more are in the JSON file only
_LABELLED_CLASSES = 40  # names of more would overlap in the picture
_LABEL_LENGTH = 50  # a longer name would leave no room for the picture
_METRICS = {"top1": "top-1", "top5": "top-5", "majority": "largest class"}


def log_probe(results: dict[str, dict[str, Any]]) -> None:
    """Accuracies of each method, and of each class where there are few."""
    rows = [
        [label, *(_cell(result, metric) for result in results.values())]
        for metric, label in _METRICS.items()
    ]
    rows = [row for row in rows if any(row[1:])]
    classes = next(iter(results.values()))["classes"]
    if len(classes) <= _LISTED_CLASSES:
        for name in classes:
            shares = (_percent(result["classes"][name]) for result in results.values())
            rows.append([f"class {name}", *shares])
    log_table("", ["", *results], rows)


def save_confusion(result: dict[str, Any], title: str, file: Path) -> None:
    """Shares of each true class (row) that were taken for each class (column)."""
    counts = np.array(result["confusion"])
    names = [_label(name) for name in result["classes"]]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.35 * min(len(names), _LABELLED_CLASSES)
    with figure_in(file, side, side) as figure:
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
        axis.set_title(one_line(title), fontsize=9)
        figure.colorbar(shown, ax=axis, fraction=0.046)


def _label(name: str) -> str:
    shown = one_line(name)
    return shown if len(shown) <= _LABEL_LENGTH else f"{shown[:_LABEL_LENGTH]}…"


def _cell(result: dict[str, Any], metric: str) -> str:
    """`31.2 % ± 4.0`, empty where the metric is not known."""
    if metric not in result:
        return ""
    deviation = result.get(f"{metric}_deviation")
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return _percent(result[metric]) + spread


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
