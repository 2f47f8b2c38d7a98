"""Decoded clips as they travel: blocks, slices of them, and global batches of fixed size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field


@dataclass(frozen=True)
class Clips:
    """Decoded clips in memory, perhaps a read-only view of shared memory."""

    frames: np.ndarray  # uint8 [B, T, H, W, 3] at the stored size
    aspects: np.ndarray  # float64 [B], width / height of each video
    stream_indices: np.ndarray  # int64 [B], places in the endless shuffled stream of clips
    first: int  # run-wide index of the first clip; clip i of the run is `first + i`
    # float32 [B, T', G, G, 2], displacement per time slice at a grid of points over the whole
    # frame, in frame widths and heights; None where nothing reads it.
    motion: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, start: int, stop: int) -> Clips:
        """A contiguous part, without copying."""
        return Clips(
            self.frames[start:stop],
            self.aspects[start:stop],
            self.stream_indices[start:stop],
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
        np.concatenate([part.stream_indices for part in parts]),
        parts[0].first,
        np.concatenate(motion) if motion else None,
    )


# Far more than any run has, and far from what overflows in computing with it.
Count = Annotated[int, Field(ge=0, le=1 << 40)]


@dataclass(frozen=True)
class Cursor:
    """Place in the stream of blocks: the next clip is row `row` of block `block`."""

    block: Count = 0
    row: Count = 0


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
    """One global batch by reference."""

    first: int  # run-wide index of the first clip
    slices: tuple[BlockSlice, ...]  # rows that make up the batch, in order
    after: Cursor  # behind the batch, where a resumed run continues

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


class Block(NamedTuple):
    number: int  # place in the stream
    handle: Any  # reference or clips
    rows: int  # good clips


class Batcher:
    """Cuts consecutive batches out of blocks, by reference."""

    def __init__(self, blocks: Iterator[Block], cursor: Cursor) -> None:
        """Args: blocks: from block `cursor.block` on, in order, without end."""
        self._blocks = blocks
        self._skip = cursor.row
        self._block = Block(cursor.block, None, 0)
        self._row = 0

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        """The next `clips` good clips of the stream; `first` is the run-wide index of the first."""
        slices: list[BlockSlice] = []
        missing = clips
        while missing:
            if self._row == self._block.rows:
                self._block = next(self._blocks)
                self._row = min(self._skip, self._block.rows)
                self._skip = 0
                continue
            stop = min(self._row + missing, self._block.rows)
            slices.append(BlockSlice(self._block.handle, self._row, stop))
            missing -= stop - self._row
            self._row = stop
        return ClipBatch(first, tuple(slices), Cursor(self._block.number, self._row))
