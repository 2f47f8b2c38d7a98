"""Decoded clips as they travel: blocks in the object store, slices of them, whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Clips:
    """Decoded clips in memory.

    Attributes:
        frames: uint8 [B, T, H, W, 3] on the canvas, possibly a read-only view of shared memory.
        aspects: float64 [B], width / height of each video.
        positions: int64 [B], places in the endless shuffled stream of clips.
        first: run-wide index of the first clip; clip i of the run is `first + i`.
        motion: float32 [B, T', G, G, 2], displacement per time slice at a grid of points over the
            whole frame, in frame widths and heights; None where nothing reads it.
    """

    frames: np.ndarray
    aspects: np.ndarray
    positions: np.ndarray
    first: int
    motion: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, start: int, stop: int) -> Clips:
        """A contiguous part, without copying."""
        return Clips(
            self.frames[start:stop],
            self.aspects[start:stop],
            self.positions[start:stop],
            self.first + start,
            None if self.motion is None else self.motion[start:stop],
        )


def concatenate(parts: list[Clips]) -> Clips:
    """Joins consecutive parts; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    motion = [part.motion for part in parts if part.motion is not None]
    return Clips(
        np.concatenate([part.frames for part in parts]),
        np.concatenate([part.aspects for part in parts]),
        np.concatenate([part.positions for part in parts]),
        parts[0].first,
        np.concatenate(motion) if motion else None,
    )


@dataclass(frozen=True)
class Cursor:
    """Place in the stream of blocks: the next clip is row `row` of block `block`."""

    block: int = 0
    row: int = 0


@dataclass(frozen=True)
class BlockSlice:
    """Rows `start` .. `stop - 1` of one decoded block.

    `block` is whatever the stream's reader resolves: an object reference under Ray, the decoded
    `Clips` themselves in serial mode. The slice travels; the pixels stay where they are.
    """

    block: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class ClipBatch:
    """One global batch by reference.

    Attributes:
        first: run-wide index of the first clip.
        slices: rows that make up the batch, in order.
        after: cursor behind the batch, where a resumed run continues.
    """

    first: int
    slices: tuple[BlockSlice, ...]
    after: Cursor

    def __len__(self) -> int:
        return sum(len(part) for part in self.slices)

    def rows(self, start: int, stop: int) -> ClipBatch:
        """Rows `start` .. `stop - 1` of the batch, by reference."""
        chosen: list[BlockSlice] = []
        offset = 0
        for part in self.slices:
            low, high = max(start, offset), min(stop, offset + len(part))
            if low < high:
                begin = part.start - offset
                chosen.append(BlockSlice(part.block, begin + low, begin + high))
            offset += len(part)
        return ClipBatch(self.first + start, tuple(chosen), self.after)
