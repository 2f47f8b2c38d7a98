"""Pictures of clips as a model sees them, and figures of numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.config import Config
from tats_ray.evaluation.inspection import Inspection
from tats_ray.storage import replacing
from tats_ray.tracking.panels import Look, Panel, clip_panels
from tats_ray.tracking.sheet import Sheet, draw_sheet


def save_pictures(inspection: Inspection, config: Config, folder: Path, step: int) -> list[Path]:
    """Draws every clip of an inspection, one column per time slice of tokens; returns the files,
    `step_<n>_clip_<i>.png`.

    Raises:
        StorageError: disk full or read-only; what was there before stays.
    """
    files = []
    for clip in range(len(inspection.pixels)):
        title = f"clip {clip} · {caption(config, step, inspection, clip)}"
        panels = clip_panels(inspection, clip, config, Look())
        sheet = slices_sheet(title, panels, notes(config, inspection))
        file = folder / f"step_{step:08d}_clip_{clip}.png"
        save_image(draw_sheet(sheet), file)
        files.append(file)
    return files


def slices_sheet(title: str, panels: Sequence[Panel], remarks: Sequence[str]) -> Sheet:
    """A line per panel, a column per time slice."""
    return Sheet(
        title=title,
        headers=[f"slice {number}" for number in range(len(panels[0].images))],
        labels=[f"{panel.kind}\n({panel.unit})" if panel.unit else panel.kind for panel in panels],
        images=[list(panel.images) for panel in panels],
        notes=remarks,
        line_scales=[panel.scale for panel in panels],
    )


def caption(config: Config, step: int, inspection: Inspection, clip: int) -> str:
    """Step, masking system, its ratio, and the clip's enrichment where the truth is known."""
    tokens, visible = config.grid.tokens, inspection.visible.shape[1]
    parts = [
        f"step {step}",
        config.masking.system,
        f"{1 - visible / tokens:.1%} hidden ({visible} of {tokens} tokens visible)",
    ]
    if inspection.enrichment is not None:
        found = inspection.enrichment[clip]
        values = [("moving objects", found.moving), ("static distractors", found.static)]
        shown = [f"{name} {value:.2f}" for name, value in values if math.isfinite(value)]
        parts.append(f"enrichment: {', '.join(shown) or 'no object in this clip'}")
    return " · ".join(parts)


def notes(config: Config, inspection: Inspection) -> list[str]:
    """What one has to know to read the images."""
    remarks = []
    if inspection.objects is not None:
        remarks.append("Outlines: green around moving objects, orange around static distractors.")
    if inspection.reconstruction is not None:
        hidden = ""
        if config.model.target.normalize != "none":
            hidden = "hidden patches are shown with their true mean and deviation; "
        remarks.append(
            f"Reconstruction: {hidden}visible patches are those of the clip. Error: visible tokens "
            "are hatched."
        )
    return remarks


def save_image(image: np.ndarray, file: Path) -> None:
    """Writes uint8 [H, W, 3] in the format of the file's suffix.

    Raises:
        StorageError: disk full or read-only; what was there before stays.
    """
    from PIL import Image

    with replacing(file) as aside:
        Image.fromarray(image).save(aside)


@contextmanager
def figure_in(file: Path, width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure that is written to `file` as a whole; its texts are shown as they are.

    Args:
        width, height: inches.

    Raises:
        StorageError: disk full or read-only; what was there before stays.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a frame is drawn in its place
        figure = Figure(figsize=(width, height))
        yield figure
        with replacing(file) as aside:
            figure.savefig(aside, dpi=100, bbox_inches="tight")
