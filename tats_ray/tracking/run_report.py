"""The report of one run: a page that stands alone, made of what lies in the run's directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tats_ray import __version__
from tats_ray.config.load import flatten
from tats_ray.tracking.html_page import (
    Html,
    cards,
    details,
    element,
    embedded,
    figure,
    join,
    paragraph,
    section,
    table,
    text,
    write_page,
)
from tats_ray.tracking.mask_history import GIF
from tats_ray.tracking.metrics_file import (
    Records,
    highest,
    is_finite,
    mean_over_steps,
    points_over_steps,
    total_over_steps,
)

_ALL_PARTS = "Parts of the loss"
# Title -> metrics of docs/metrics.md on one pair of axes.
_CHARTS = {
    "Loss (mean error of the predicted tokens)": ["loss"],
    _ALL_PARTS: ["loss/pixels", "loss/sampling", "loss/motion", "loss/features"],
    "Motion enrichment (1 is chance)": ["enrichment/moving", "enrichment/static"],
    "Error in the rollouts": ["rollout/error"],
    "Entropy of the policy (nats)": ["ppo/entropy"],
    "KL divergence of PPO's updates": ["ppo/kl"],
    "Share of clipped ratios": ["ppo/clip_fraction"],
    "Staleness of the rollouts (steps)": ["rollout/staleness"],
    "Gradient norm of the autoencoder": ["gradient_norm"],
    "Learning rate": ["lr"],
    "Clips per second": ["time/clips_per_second"],
}
_PARTS = {
    "time/data_seconds": "wait for decoded clips",
    "rollout/wait_seconds": "wait for the autoencoder's weights before rollouts",
    "rollout/seconds": "rollouts",
    "ppo/seconds": "PPO update",
}
_LISTED = 20  # broken videos that are named
_FIRST_CARDS = {
    "steps": "steps",
    "clips": "clips",
    "loss_first": "loss, first record",
    "loss_last": "loss, last record",
    "motion_enrichment": "enrichment, moving objects",
    "static_enrichment": "enrichment, static distractors",
    "motion_enrichment_random": "enrichment, random masks",
    "top1": "top-1",
    "top5": "top-5",
    "clips_per_second": "clips per second",
}


@dataclass(frozen=True)
class RunFiles:
    """What a run has left so far.

    Attributes:
        config: content of config.yaml.
        records: of metrics.jsonl.
        summary: of summary.json; empty before the run's end.
        quarantine: broken videos, path -> reason.
        nonfinite: steps that were not finite, as in nonfinite.jsonl.
        probes: name -> content of probe.json.
        evaluations: name -> content of an evaluation's file.
    """

    path: Path
    config: dict[str, Any]
    records: Records
    summary: dict[str, Any]
    quarantine: dict[str, Any]
    nonfinite: Records
    probes: dict[str, dict[str, Any]]
    evaluations: dict[str, dict[str, Any]]


def write_run_report(run: RunFiles) -> Path:
    """Writes `report.html` into the run's directory; returns it.

    Raises:
        StorageError: disk full or read-only; what was there before stays.
    """
    parts = [
        _head(run),
        section("Curves", *_curves(run.records)),
        section("Masks", *_masks(run.path / "pictures")),
        section("Where the time goes", *_costs(run)),
        section("Faults survived", *_faults(run)),
        section("Evaluation", *_evaluation(run)),
        section("Settings", _settings(run.config)),
        paragraph(f"Written by tats_ray {__version__}.", "small"),
    ]
    return write_page(run.path / "report.html", f"{run.path.name}: report", parts)


def _head(run: RunFiles) -> Html:
    flat = flatten(run.config)
    wanted = flat.get("train.steps", "?")
    done = run.records[-1]["step"] if run.records else 0
    state = "complete" if run.summary else f"not complete: step {done} of {wanted}"
    kind = "fine-tuning" if "masking.system" not in flat else "pre-training"
    about = [kind, state]
    if kind == "pre-training":
        about[1:1] = [flat["masking.system"], f"{flat.get('masking.ratio')} of the tokens hidden"]
    shown = [
        (label, _number(run.summary[name]))
        for name, label in _FIRST_CARDS.items()
        if run.summary.get(name) is not None
    ]
    return join([
        element("h1", text(run.path.name)), paragraph(" · ".join(map(str, about))), cards(shown),
    ])  # fmt: skip


def _curves(records: Records) -> list[Html]:
    charts = []
    for title, names in _CHARTS.items():
        known = {name: points_over_steps(records, name) for name in names}
        lines = {name: points for name, points in known.items() if points}
        if _tells(title, lines):
            base = 1.0 if "enrichment" in title else None
            drawn = figure(3.9, 2.5, partial(_draw_lines, lines=lines, base=base))
            charts.append(element("div", join([element("h3", text(title)), drawn])))
    if not charts:
        return [paragraph("There are no records yet.")]
    return [element("div", join(charts), "charts")]


def _tells(title: str, lines: dict[str, list[tuple[int, float]]]) -> bool:
    """Not the single part of a loss, which is the whole, nor what is 0 all the time."""
    if title == _ALL_PARTS and len(lines) < 2:
        return False
    return any(value for points in lines.values() for _, value in points)


def _draw_lines(drawn: Any, lines: dict[str, list[tuple[int, float]]], base: float | None) -> None:
    axis = drawn.subplots()
    for name, points in lines.items():
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) < 30 else ""
        axis.plot(steps, values, marker=marker, markersize=3, label=name.rpartition("/")[2])
    if base is not None:
        axis.axhline(base, color="grey", linewidth=0.8)
    if len(lines) > 1:
        axis.legend(fontsize=8)
    axis.set_xlabel("step", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)


def _masks(pictures: Path) -> list[Html]:
    stills = sorted(pictures.glob("step_*_clip_*.png"))
    if not stills:
        return [paragraph("There are no pictures yet.")]
    parts = []
    if (pictures / GIF).is_file():
        words = "Visible tokens and sampler of one held-out clip over the steps of the run"
        parts.append(embedded(pictures / GIF, words))
    newest = stills[-1].name.split("_clip_")[0]
    for file in stills:
        if file.name.startswith(f"{newest}_clip_"):
            parts.append(embedded(file, file.stem.replace("_", " ")))
    return parts


def _costs(run: RunFiles) -> list[Html]:
    whole = mean_over_steps(run.records, "time/step_seconds")
    if whole is None:
        return [paragraph("There are no records yet.")]
    known = {label: mean_over_steps(run.records, name) for name, label in _PARTS.items()}
    parts = {label: seconds for label, seconds in known.items() if seconds is not None}
    serial = run.config.get("cluster", {}).get("mode") == "serial"
    if serial:
        parts["autoencoder's update and the rest"] = max(whole - sum(parts.values()), 0.0)
        words = "A step does one after the other."
    else:
        words = "Parts run at the same time, so that they may take longer together than a step."
    rows = [[name, f"{part:.3f} s", f"{part / whole:.0%}"] for name, part in parts.items()]
    rows.append(["a whole step", f"{whole:.3f} s", "100%"])
    chart = figure(6.0, 0.45 * len(parts) + 0.6, partial(_draw_parts, parts=parts))
    columns = [table(["part", "mean of all steps", "share of a step"], rows), chart]
    return [paragraph(words), element("div", join(columns), "charts")]


def _draw_parts(drawn: Any, parts: dict[str, float]) -> None:
    axis = drawn.subplots()
    axis.barh(list(parts), list(parts.values()), color="tab:blue")
    axis.invert_yaxis()
    axis.set_xlabel("seconds per step", fontsize=9)
    axis.tick_params(labelsize=8)


def _faults(run: RunFiles) -> list[Html]:
    counts = {
        "broken videos left out": len(run.quarantine),
        "steps that were not finite": len(run.nonfinite),
        "optimiser steps left out": highest(run.records, "skipped_steps"),
        "PPO updates left out": highest(run.records, "ppo/skipped_updates"),
        "rollout workers that failed": total_over_steps(run.records, "rollout/failures"),
        "restarts of PPO learners": highest(run.records, "ppo/restarts"),
    }
    rows: list[list[object]] = [[name, count] for name, count in counts.items()]
    rows.append(["continued after step", run.summary.get("resumed_from") or "-"])
    named = list(run.quarantine.items())[:_LISTED]
    if not named:
        return [table(["fault", "times"], rows)]
    title = f"Broken videos: the first {len(named)} of {len(run.quarantine)}"
    return [table(["fault", "times"], rows), details(title, table(["video", "reason"], named))]


def _evaluation(run: RunFiles) -> list[Html]:
    rows, pictures = [], []
    for name, content in run.probes.items():
        for method, result in content.get("results", {}).items():
            rows.append([f"probe {name}", method, content.get("step", "-"), *_accuracies(result)])
            pictures.append(run.path / "probes" / name / f"confusion_{method}.png")
    for name, content in run.evaluations.items():
        rows.append([f"test on {name}", "fine-tuned", "-", *_accuracies(content)])
        pictures.append(run.path / "evaluation" / f"{name}.png")
    if not rows:
        return [paragraph("None yet: tats-ray probe and tats-ray finetune evaluate the features.")]
    found = [file for file in pictures if file.is_file()]
    shown = join(embedded(file, f"Confusion: {file.parent.name}, {file.stem}") for file in found)
    return [
        table(["evaluation", "method", "after step", "top-1", "top-5"], rows),
        details("Confusion between classes", element("div", shown, "charts"))
        if found
        else Html(""),
    ]


def _accuracies(result: Mapping[str, Any]) -> list[str]:
    cells = []
    for name in ("top1", "top5"):
        value, deviation = result.get(name), result.get(f"{name}_deviation")
        spread = f" ± {100 * deviation:.1f}" if is_finite(deviation) else ""
        cells.append(f"{100 * value:.1f} %{spread}" if is_finite(value) else "-")
    return cells


def _settings(config: dict[str, Any]) -> Html:
    parts = []
    for name, content in config.items():
        flat = flatten(content) if isinstance(content, dict) else {"": content}
        rows = [[key, "-" if value is None else value] for key, value in flat.items()]
        parts.append(details(name, table(["setting", "value"], rows)))
    return join(parts)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
