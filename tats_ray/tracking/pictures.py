"""One picture per clip: frames with the outline of what moves where that is known, the sampler's
map, visible tokens, reconstruction, errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from tats_ray.config.geometry import TokenGrid
from tats_ray.evaluation.inspection import Inspection
from tats_ray.storage import replacing

_INCHES = 1.1  # of one small image


def save_pictures(inspection: Inspection, grid: TokenGrid, folder: Path, step: int) -> list[Path]:
    """Draws every clip of an inspection, one column per time slice of tokens; returns the files,
    `step_<n>_clip_<i>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for clip in range(len(inspection.pixels)):
        file = folder / f"step_{step:08d}_clip_{clip}.png"
        _draw(_rows(inspection, grid, clip), file, step)
        files.append(file)
    return files


def _rows(inspection: Inspection, grid: TokenGrid, clip: int) -> list[tuple[str, np.ndarray, str]]:
    """Label, images [time, ...] and colour map of each row of the picture."""
    pixels = inspection.pixels[clip]
    if inspection.objects is not None:
        pixels = outlined(pixels, inspection.objects[clip])
    frames = _slices(pixels, grid)
    mask = torch.zeros(grid.tokens)
    mask[inspection.visible[clip]] = 1.0
    size = frames.shape[1]
    shown = _maps(mask, grid).repeat(size // grid.rows, axis=1).repeat(size // grid.columns, axis=2)
    rows = [("frames", frames, "")]
    if inspection.log_probs is not None:
        # 1.0 is the probability of a uniform policy.
        relative = inspection.log_probs[clip].exp() * grid.tokens
        rows.append(("sampler\n(x uniform)", _maps(relative, grid), "viridis"))
    if inspection.speed is not None:
        rows.append(("motion\n(pixels)", _maps(inspection.speed[clip], grid), "magma"))
    rows.append(("visible", frames * shown[..., None] + 0.5 * (1 - shown[..., None]), ""))
    if inspection.reconstruction is not None:
        rows.append(("reconstruction", _slices(inspection.reconstruction[clip], grid), ""))
    if inspection.error is not None:
        rows.append(("error", _maps(inspection.error[clip], grid), "inferno"))
    return rows


def _draw(rows: list[tuple[str, np.ndarray, str]], file: Path, step: int) -> None:
    columns = len(rows[0][1])
    with figure_in(file, _INCHES * (columns + 1.4), _INCHES * (len(rows) + 0.4)) as figure:
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for line, (label, images, colours) in zip(axes, rows, strict=True):
            top = float(images.max())
            for axis, image in zip(line, images, strict=True):
                shown = axis.imshow(image, cmap=colours or None, vmin=0.0, vmax=top or 1.0)
                axis.set_xticks([])
                axis.set_yticks([])
            line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
            if colours:
                bar = figure.colorbar(shown, ax=list(line), fraction=0.012, pad=0.01)
                bar.ax.tick_params(labelsize=6)
        figure.suptitle(f"step {step}", fontsize=9)


def outlined(pixels: Tensor, objects: Tensor) -> Tensor:
    """Draws the innermost pixels of objects green: float [3, T, S, S] and bool [T, S, S]."""
    outside = (~objects).float()[:, None]
    edge = objects & (max_pool2d(outside, 3, stride=1, padding=1)[:, 0] > 0)
    green = torch.tensor([0.0, 1.0, 0.0])[:, None, None, None]
    return torch.where(edge, green, pixels)


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


def _slices(pixels: Tensor, grid: TokenGrid) -> np.ndarray:
    """First frame of each time slice: [3, T, S, S] -> [time, S, S, 3]."""
    step = pixels.shape[1] // grid.time
    return pixels[:, ::step].permute(1, 2, 3, 0).numpy()


def _maps(values: Tensor, grid: TokenGrid) -> np.ndarray:
    """[N] -> [time, rows, columns]."""
    return values.view(grid.time, grid.rows, grid.columns).numpy()
