"""Kinds of motion, the labels of the synthetic set.

Each kind is a displacement over time that is zero at a random reference frame; the object's place
at that frame is uniform on a frame that wraps around. So position, orientation and appearance are
distributed alike in every single frame of every kind, and only the change over time separates them
apart. The kinds of path keep their meaning under a horizontal flip, the directions do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Path(NamedTuple):
    """Displacement in frame widths, float [F, 2] (x, y), and rotation in radians, float [F]."""

    offset: np.ndarray
    angle: np.ndarray


class Pace(NamedTuple):
    """Random parameters that every kind reads in its own way."""

    speed: float  # frame widths per frame
    direction: np.ndarray  # unit vector
    period: float  # frames
    phase: float  # radians
    spin: float  # +1 or -1


def _linear(time: np.ndarray, pace: Pace) -> np.ndarray:
    return pace.speed * time[:, None] * pace.direction


def _oscillate(time: np.ndarray, pace: Pace) -> np.ndarray:
    turn = 2 * np.pi * time / pace.period + pace.phase
    reach = pace.speed * pace.period / 4  # the mean speed is that of `linear`
    return reach * np.sin(turn)[:, None] * pace.direction


def _circle(time: np.ndarray, pace: Pace) -> np.ndarray:
    turn = pace.spin * 2 * np.pi * time / pace.period + pace.phase
    radius = pace.speed * pace.period / (2 * np.pi)
    return radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _zigzag(time: np.ndarray, pace: Pace) -> np.ndarray:
    across = np.array([-pace.direction[1], pace.direction[0]])
    cycle = (time / pace.period + pace.phase / (2 * np.pi)) % 1.0
    triangle = 4 * np.abs(cycle - 0.5) - 1
    share = pace.speed / np.sqrt(2)
    return share * (time[:, None] * pace.direction + triangle[:, None] * pace.period / 4 * across)


def _stop_and_go(time: np.ndarray, pace: Pace) -> np.ndarray:
    cycle = (time / pace.period + pace.phase / (2 * np.pi)) % 1.0
    moving = (cycle < 0.5).astype(float) * 2
    return pace.speed * np.cumsum(moving)[:, None] * pace.direction


def _rest(time: np.ndarray, pace: Pace) -> np.ndarray:
    return np.zeros((len(time), 2))


KINDS: dict[str, Callable[[np.ndarray, Pace], np.ndarray]] = {
    "linear": _linear,
    "oscillate": _oscillate,
    "circle": _circle,
    "zigzag": _zigzag,
    "stop_and_go": _stop_and_go,
    "spin": _rest,  # turns in place
}

# Straight paths told apart by their direction: easier than the kinds of path.
DIRECTIONS = ("right", "down_right", "down", "down_left", "left", "up_left", "up", "up_right")
_SPREAD = 0.8  # share of a direction's sector that its paths fill

CLASSES: dict[str, tuple[str, ...]] = {"paths": tuple(KINDS), "directions": DIRECTIONS}


def motion_path(
    rng: np.random.Generator, kind: str, frames: int, speed: tuple[float, float]
) -> Path:
    """Random path of a kind or direction; the same generator state gives all of them the same
    parameters."""
    share = rng.uniform()
    if kind in DIRECTIONS:
        share = (DIRECTIONS.index(kind) + _SPREAD * (share - 0.5)) / len(DIRECTIONS)
    direction = 2 * np.pi * share
    pace = Pace(
        speed=rng.uniform(*speed),
        direction=np.array([np.cos(direction), np.sin(direction)]),
        period=rng.uniform(8.0, 16.0),
        phase=rng.uniform(0, 2 * np.pi),
        spin=rng.choice([-1.0, 1.0]),
    )
    reference = int(rng.integers(frames))
    time = np.arange(frames, dtype=float)
    offset = KINDS.get(kind, _linear)(time, pace)
    # A quarter turn in a few frames moves the rim about as fast as the other kinds move.
    turn = pace.spin * 8 * pace.speed * (time - reference) if kind == "spin" else np.zeros(frames)
    return Path(offset - offset[reference], turn)
