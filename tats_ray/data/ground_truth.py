"""Which pixels of a video belong to moving objects, where that is known.

The synthetic set knows it of its own making (manifest column `ground_truth`). Of real videos a
column `mask` names an .npz file whose `mask`, uint8 [F, H, W], is 255 inside moving objects; H and
W may be those of any size of the video.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tats_ray.errors import ManifestError

_INSIDE = 127  # grey levels above this count as object


class GroundTruth(NamedTuple):
    moving: np.ndarray  # bool [F, H, W], inside objects that move relative to the background
    static: np.ndarray  # bool [F, H, W], inside static distractors; empty for real videos


def load_ground_truth(video: Mapping[str, Any]) -> GroundTruth | None:
    """Ground truth of a row of a manifest; None where it has none.

    Raises:
        ManifestError: the file of `mask` is missing or does not fit the video.
    """
    if video["ground_truth"] is not None:
        return _synthetic(video["ground_truth"])
    if video["mask"] is None:
        return None
    moving = _read_mask(video["path"], video["mask"], video["frames"])
    return GroundTruth(moving, np.zeros_like(moving))


def _synthetic(path: str) -> GroundTruth:
    with np.load(path, allow_pickle=False) as stored:
        shape = tuple(stored["shape"])
        count = int(np.prod(shape))
        moving, static = (
            np.unpackbits(stored[name], count=count).reshape(shape).astype(bool)
            for name in ("moving", "static")
        )
    return GroundTruth(moving, static)


def _read_mask(video: str, path: str, frames: int) -> np.ndarray:
    """bool [frames, H, W]."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            mask = stored["mask"]
    except (OSError, TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ManifestError(
            f"{path}: the mask of {video} cannot be read ({type(error).__name__}); give an .npz "
            "file with an array 'mask'"
        ) from None
    if mask.dtype != np.uint8 or mask.ndim != 3 or len(mask) != frames or not mask.size:
        raise ManifestError(
            f"{path}: the mask of {video} is {mask.dtype} {list(mask.shape)}; it must be uint8 "
            f"with one picture for each of {frames} frames"
        )
    return mask > _INSIDE
