"""How far away the reference frames of a coded frame are, and who lends a frame its vectors.

FFmpeg says of a vector only whether its reference lies in the past or in the future. The nearest
frame on that side that may be one is taken. Encoders that refer further back in some blocks make
those blocks' displacements too large; videos re-encoded here have one reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

_HELD_PICTURES = 16  # no decoder must hold more for later, so no future reference is further away


class CodedFrame(NamedTuple):
    bidirectional: bool  # a B-frame
    stamp: int | None  # time stamp
    vectors: bool  # whether it has usable ones


def reference_distances(frames: Sequence[CodedFrame], order: Sequence[int | None]) -> np.ndarray:
    """Distance in frames to the nearest past and the nearest future reference.

    A reference is coded before the frame that uses it. I- and P-frames are references; a B-frame
    is one where it is coded before a frame that is shown earlier, for nothing else is a reason to.

    Args:
        frames: in the order in which they are shown.
        order: time stamps in coded order; may hold those of frames that are not given.

    Returns:
        float32 [F, 2], at least 1.
    """
    rank = _coded_rank(frames, order)
    before = np.maximum.accumulate(rank)
    reference = [
        not frame.bidirectional or (number > 0 and before[number - 1] > rank[number])
        for number, frame in enumerate(frames)
    ]
    distances = np.ones((len(frames), 2), np.float32)
    for number in range(len(frames)):
        ahead = min(number + _HELD_PICTURES, len(frames) - 1)
        for side, others in enumerate((range(number - 1, -1, -1), range(number + 1, ahead + 1))):
            usable = (abs(i - number) for i in others if reference[i] and rank[i] < rank[number])
            distances[number, side] = next(usable, 1)
    return distances


def fill_sources(frames: Sequence[CodedFrame]) -> np.ndarray | None:
    """For each frame the frame whose field it shows, int64 [F]; None if none has vectors.

    A B-frame without vectors lies on the way that the next other frame's vectors span and takes
    that frame's. Else the frame before lends its own; the first frames take what comes first.
    """
    known = [number for number, frame in enumerate(frames) if frame.vectors]
    if not known:
        return None
    sources = np.empty(len(frames), np.int64)
    newest = known[0]
    for number, frame in enumerate(frames):
        if frame.vectors:
            newest = number
        sources[number] = newest
        if frame.bidirectional and not frame.vectors:
            others = range(number + 1, len(frames))
            ahead = next((i for i in others if not frames[i].bidirectional), number)
            if frames[ahead].vectors:
                sources[number] = ahead
    return sources


def _coded_rank(frames: Sequence[CodedFrame], order: Sequence[int | None]) -> np.ndarray:
    """Place of each frame in the order of coding, int64 [F]."""
    place = {stamp: rank for rank, stamp in enumerate(order)}
    stamps = [frame.stamp for frame in frames]
    rising = all(a is not None and b is not None and a < b for a, b in pairwise(stamps))
    if rising and len(place) == len(order) and all(stamp in place for stamp in stamps):
        return np.array([place[stamp] for stamp in stamps])
    # Without time stamps that can be trusted (AVI): every B-frame follows the next other frame.
    ahead, keys = len(frames), []
    for number in range(len(frames) - 1, -1, -1):
        if not frames[number].bidirectional:
            ahead = number
        keys.append((ahead, frames[number].bidirectional, number))
    rank = np.empty(len(frames), np.int64)
    rank[[key[2] for key in sorted(keys)]] = np.arange(len(frames))
    return rank
