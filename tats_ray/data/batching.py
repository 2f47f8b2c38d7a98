"""From a stream of decoded blocks, some short of a clip, to global batches of fixed size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tats_ray.data.clips import BlockSlice, ClipBatch, Cursor


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
