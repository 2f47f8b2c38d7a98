"""Following points through pictures. TrackMAE uses CoTracker3; two that need no download stand in.

CoTracker3's code and weights are licensed CC-BY-NC 4.0 and are no part of this package: torch.hub
fetches both on first use and finds them in its own cache afterwards, also without a network.

Points are (x, y) in frame widths and heights; OpenCV counts pixels from the centre of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from tats_ray.data.motion.fields import sample_field
from tats_ray.errors import ConfigError, MotionPriorError

# Lucas-Kanade. The window is small because objects are: a larger one mixes their motion with the
# background's. Over objects of 5 to 15 pixels' radius 9 pixels lost the fewest points.
_WINDOW = (9, 9)  # pixels
_LEVELS = 3
_RETURN_LIMIT = 1.0  # pixels that a point may miss its start by when followed there and back
_NEIGHBOURS = 8
# Below this side (pixels) dense flow at half resolution loses small objects; above, it halves the
# error for four times the cost.
_FULL_FLOW_SIDE = 192

# A fixed commit: the code that runs is known, and a cached copy is used without asking GitHub.
_COTRACKER = "facebookresearch/co-tracker:82e02e8029753ad4ef13cf06be7f4fc5facdda4d"
_MODEL = "cotracker3_offline"


# Frames uint8 [S, H, W, 3] and the points' places in the first, float32 [Q, 2] -> their places in
# every frame, float32 [S, Q, 2]; they may leave the frame.
PointTracker = Callable[[np.ndarray, np.ndarray], np.ndarray]


def point_tracker(source: str, path: str) -> PointTracker:
    """The tracker of a source.

    Args:
        path: video that it is wanted for, for the message.

    Raises:
        MotionPriorError: CoTracker3 can be had neither from the network nor from the cache.
    """
    if source != "cotracker3":
        return track_dense_flow if source == "dense_flow" else track_lucas_kanade
    try:
        return partial(_track_cotracker, *_load_cotracker())
    # The network, the archive, the weights and their code each raise types of their own.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MotionPriorError(
            path,
            f"CoTracker3 cannot be loaded ({reason}); run torch.hub.load('{_COTRACKER}', "
            f"'{_MODEL}') once with a network, or set data.motion.source=lucas_kanade",
        ) from None


def require_opencv(source: str, needed_by: str) -> None:
    """Before videos are read: without the library each of them would look broken.

    Args:
        needed_by: the setting or argument, for the message.

    Raises:
        ConfigError: the source needs OpenCV, which is an extra of the package.
    """
    if source not in ("lucas_kanade", "dense_flow"):
        return
    try:
        opencv()
    except ImportError as error:
        raise ConfigError(
            f"{needed_by} needs OpenCV, which cannot be imported ({error}): "
            "pip install 'tats-ray[motion]'"
        ) from None


def track_lucas_kanade(frames: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Pyramidal Lucas-Kanade from frame to frame, each step checked by following it back.

    A point that is lost in a step moves by the median of its neighbours' steps, and rests where
    they are lost too. Neighbours are the points that started nearest to it.
    """
    cv2 = opencv()
    size = np.array([frames.shape[2], frames.shape[1]], np.float32)
    neighbours = _nearest(queries.astype(np.float32).tobytes())
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    places = [queries * size - 0.5]
    for before, after in pairwise(grey):
        step, lost = _lucas_kanade_step(before, after, places[-1])
        places.append(places[-1] + _fill_lost(step, lost, neighbours))
    return ((np.stack(places) + 0.5) / size).astype(np.float32)


def track_dense_flow(frames: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Chains dense optical flow (DIS, Kroeger et al. 2016) from frame to frame."""
    places = [queries.astype(np.float32)]
    for before, after in pairwise(frames):
        places.append(places[-1] + sample_field(dense_flow(before, after), places[-1]))
    return np.stack(places)


def _track_cotracker(
    model: Any, device: str, frames: np.ndarray, queries: np.ndarray
) -> np.ndarray:
    """CoTracker3 (Karaev et al. 2024): follows points through all frames at once.

    What it says of visibility is left unused, as by TrackMAE. Its own query grid is not
    centred on patches, so places are always given to it.
    """
    import torch

    if len(frames) == 1:
        return queries[None].astype(np.float32)
    size = np.array([frames.shape[2], frames.shape[1]], np.float32)
    start = np.zeros((1, len(queries), 3), np.float32)  # frame, x, y
    start[0, :, 1:] = queries * size - 0.5
    pixels = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))[None]
    with torch.inference_mode():
        tracks, _ = model(
            torch.from_numpy(pixels).float().to(device),
            queries=torch.from_numpy(start).to(device),
        )
    return ((tracks[0].float().cpu().numpy() + 0.5) / size).astype(np.float32)


def dense_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Dense optical flow between two frames uint8 [H, W, 3].

    Returns:
        float32 [H, W, 2] in frame widths and heights, at the pixels of `before`.
    """
    cv2 = opencv()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0 if min(before.shape[:2]) < _FULL_FLOW_SIDE else 1)
    flow = method.calc(*grey, None)
    return flow / np.array([before.shape[1], before.shape[0]], np.float32)


@cache
def opencv() -> Any:
    """OpenCV on one thread: parallelism comes from processes."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def _lucas_kanade_step(
    before: np.ndarray, after: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Steps in pixels, float32 [Q, 2], and which of them are not to be trusted, bool [Q]."""
    follow = opencv().calcOpticalFlowPyrLK
    start = places.astype(np.float32)[:, None]
    there, found, _ = follow(before, after, start, None, winSize=_WINDOW, maxLevel=_LEVELS)
    back, returned, _ = follow(after, before, there, None, winSize=_WINDOW, maxLevel=_LEVELS)
    missed = np.linalg.norm((back - start)[:, 0], axis=1)
    lost = (found[:, 0] == 0) | (returned[:, 0] == 0) | ~(missed <= _RETURN_LIMIT)
    return (there - start)[:, 0], lost


def _fill_lost(step: np.ndarray, lost: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Steps with the lost ones replaced, float32 [Q, 2]."""
    known = np.where(lost[:, None], np.nan, step)
    filled = np.where(lost[:, None], 0, step)
    helped = np.flatnonzero(lost & ~lost[neighbours].all(axis=1))
    filled[helped] = np.nanmedian(known[neighbours[helped]], axis=1)
    return filled


@lru_cache(maxsize=4)
def _nearest(queries: bytes) -> np.ndarray:
    """Numbers of the nearest other points of each, int64 [Q, up to 8]; runs ask for few grids."""
    points = np.frombuffer(queries, np.float32).reshape(-1, 2)
    distance = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, : min(_NEIGHBOURS, len(points) - 1)]


@cache
def _load_cotracker() -> tuple[Any, str]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch.hub.load(_COTRACKER, _MODEL, trust_repo=True, skip_validation=True)
    return model.to(device).eval(), device
