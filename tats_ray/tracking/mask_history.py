"""How the masks of one held-out clip change over the steps of a run: kept in a file, shown as a
GIF."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tats_ray.config import Config
from tats_ray.errors import RunDirectoryError
from tats_ray.evaluation.held_out import Enrichment
from tats_ray.evaluation.inspection import Inspection
from tats_ray.storage import replacing
from tats_ray.tracking.panels import Look, clip_panels
from tats_ray.tracking.pictures import caption, notes, slices_sheet
from tats_ray.tracking.sheet import draw_sheet

GIF = "masks_over_steps.gif"
_MOST_FRAMES = 32  # of the GIF, spread evenly over all steps: as many as one looks at
_MILLISECONDS, _LAST_MILLISECONDS = 500, 2000  # of a frame


@dataclass(frozen=True)
class MaskHistory:
    """The first held-out clip after each of n numbers of steps."""

    steps: np.ndarray  # int64 [n], ascending
    visible: np.ndarray  # int64 [n, k]
    log_probs: np.ndarray  # float32 [n, N] of a learned sampler, else [n, 0]
    enrichment: np.ndarray  # float64 [n, 2], of moving objects and static distractors; may be nan

    def after(self, step: int, inspection: Inspection) -> MaskHistory:
        """With what an inspection after `step` steps has found; what was there for this and later
        steps is dropped, since a resumed run takes them again."""
        policy = inspection.log_probs
        known = inspection.enrichment
        kept = self.steps < step
        new = MaskHistory(
            np.array([step]),
            inspection.visible[:1].numpy(),
            np.zeros((1, 0), np.float32) if policy is None else policy[:1].numpy(),
            np.array([[np.nan, np.nan] if known is None else [known[0].moving, known[0].static]]),
        )
        if not kept.any():
            return new
        pairs = ((getattr(self, name)[kept], getattr(new, name)) for name in _FIELDS)
        return MaskHistory(*(np.concatenate(pair) for pair in pairs))

    def write(self, file: Path) -> None:
        """Raises: StorageError: disk full or read-only; what was there before stays."""
        with replacing(file) as aside:
            np.savez_compressed(aside, **{name: getattr(self, name) for name in _FIELDS})


_FIELDS = ("steps", "visible", "log_probs", "enrichment")
NO_MASKS = MaskHistory(np.zeros(0, np.int64), *(np.zeros((0, 0)) for _ in range(3)))


def read_history(file: Path) -> MaskHistory:
    """What earlier parts of a run have left.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    if not file.exists():
        return NO_MASKS
    try:
        with np.load(file, allow_pickle=False) as stored:
            return MaskHistory(*(stored[name] for name in _FIELDS))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunDirectoryError(
            f"{file}: cannot be read ({error}); delete it, and the video of masks begins anew"
        ) from None


def save_mask_video(
    history: MaskHistory, inspection: Inspection, config: Config, folder: Path
) -> list[Path]:
    """Draws the frames, the sampler's map and the visible tokens after each number of steps, and
    returns the GIF; nothing where there is but one.

    Args:
        inspection: has the clip as its first one.

    Raises:
        StorageError: as `write`.
    """
    if len(history.steps) < 2:
        return []
    count = len(history.steps)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_FRAMES)).round().astype(int))
    top = float(np.exp(history.log_probs[chosen]).max(initial=0.0)) * config.grid.tokens
    images = []
    for place in chosen.tolist():
        seen = _inspection(history, place, inspection)
        look = Look(shrunk=True, tops={"sampler": top})
        title = caption(config, int(history.steps[place]), seen, 0)
        sheet = slices_sheet(title, clip_panels(seen, 0, config, look), notes(config, seen))
        images.append(draw_sheet(sheet))
    file = folder / GIF
    times = [_MILLISECONDS] * (len(images) - 1) + [_LAST_MILLISECONDS]
    save_gif(images, times, file)
    return [file]


def save_gif(images: Sequence[np.ndarray], milliseconds: Sequence[int], file: Path) -> None:
    """Writes uint8 [H, W, 3] images as a GIF that repeats for ever; smaller images are filled up
    with white at their lower ends.

    Raises:
        StorageError: as `MaskHistory.write`.
    """
    from PIL import Image

    height = max(len(image) for image in images)
    frames = []
    for image in images:
        below = ((0, height - len(image)), (0, 0), (0, 0))
        filled = Image.fromarray(np.pad(image, below, constant_values=255))
        frames.append(filled.quantize(256, dither=Image.Dither.NONE))
    with replacing(file) as aside:
        frames[0].save(
            aside, save_all=True, append_images=frames[1:], duration=list(milliseconds), loop=0
        )


def _inspection(history: MaskHistory, place: int, clip: Inspection) -> Inspection:
    """The clip with the masks of one step, without what has not been kept."""
    policy, found = history.log_probs[place], history.enrichment[place].tolist()
    return replace(
        clip,
        visible=torch.from_numpy(history.visible[place])[None],
        log_probs=torch.from_numpy(policy)[None] if policy.size else None,
        speed=None,
        reconstruction=None,
        error=None,
        enrichment=None if np.isnan(found).all() else (Enrichment(*found),),
    )
