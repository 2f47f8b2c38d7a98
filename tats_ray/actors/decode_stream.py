"""The stream of clips decoded by Ray Data tasks; the driver sees references only."""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import ray.data

from tats_ray.actors.placement import task_options
from tats_ray.actors.ray_compat import block_references, own_error
from tats_ray.config.placement import Placement
from tats_ray.data.clips import Batcher, Block, ClipBatch, Clips, Cursor, concatenate
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.stage import BlockPlan, QuarantineBook, decode_block
from tats_ray.errors import ComponentTimeoutError

# A block may be long in coming; Ray ends its task when the driver leaves.
_CLOSE_SECONDS = 5.0


class RayClipStream:
    """Decodes ahead in CPU tasks, at most two windows of `data.prefetch_blocks`; blocks come in
    order.

    Each window is one Ray Data execution that is drained at once. A single endless execution would
    be simpler, but while its consumer is the slower side Ray Data's scheduling loop spins in the
    driver and takes a core of its own. The next window starts while the last blocks of the one
    before are still decoded, so that no CPU waits between them.
    """

    def __init__(
        self,
        plan: BlockPlan,
        cursor: Cursor,
        book: QuarantineBook,
        *,
        decode_cpus: float,
        wait_seconds: float,
        clips: int | None = None,
        placed: Placement | None = None,
    ) -> None:
        """
        Args:
            decode_cpus: CPUs of one decode task.
            wait_seconds: time limit of the wait for a block.
            clips: that will be asked for, so that none behind them are decoded; None: without end.
            placed: nodes of the decode tasks; None: any.
        """
        self._plan = plan
        self._size = plan.data.block_clips
        self._plan_ref = ray.put(plan)
        self._book = book
        self._decode_cpus = decode_cpus
        self._placed = task_options(placed)
        self._wait_seconds = wait_seconds
        self._next = cursor.block  # the block to give out
        self._begun = cursor.block  # the first block of which no window has begun
        # Rows of blocks that the clips take, those included that broken videos were found to miss.
        self._rows = math.inf if clips is None else cursor.block * self._size + cursor.row + clips
        self._ready: dict[int, Block] = {}  # by number
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._windows: list[threading.Thread] = []
        self._batcher = Batcher(self._blocks(), cursor)
        with self._changed:
            self._decode_ahead()

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        """The next `clips` clips, by reference.

        Raises:
            ComponentTimeoutError: no block came within the time limit.
        """
        return self._batcher.next_batch(first, clips)

    def close(self) -> None:
        """Stops decoding ahead."""
        with self._changed:
            self._closed = True
        deadline = time.monotonic() + _CLOSE_SECONDS
        for window in self._windows:
            window.join(timeout=max(0.0, deadline - time.monotonic()))

    def _blocks(self) -> Iterator[Block]:
        while True:
            with self._changed:
                self._decode_ahead(wanted=True)
                came = self._changed.wait_for(
                    lambda: self._next in self._ready or self._error, self._wait_seconds
                )
                if self._error is not None:
                    raise own_error(self._error)
                if not came:
                    raise ComponentTimeoutError(
                        f"no decoded clips came within {self._wait_seconds:g} s "
                        "(cluster.wait_seconds); decode tasks may find no free CPU"
                    )
                block = self._ready.pop(self._next)
                self._next += 1
                self._decode_ahead()
            if not block.rows:
                self._plan.check_broken(self._book.known())
            yield block

    def _decode_ahead(self, *, wanted: bool = False) -> None:
        """Begins the next window where it is time; the caller holds the lock.

        Args:
            wanted: whether the next block is asked for, even if it lies behind the last clip.
        """
        window = self._plan.data.prefetch_blocks
        ahead = self._begun - self._next
        coming = ahead - len(self._ready)
        if self._closed or ahead > window or coming > window // 2:
            return
        missing = self._rows - self._begun * self._size
        if missing <= 0 and (ahead or not wanted):
            return
        if missing < window * self._size:
            window = max(1, -(-int(missing) // self._size))
        self._windows = [thread for thread in self._windows if thread.is_alive()]
        thread = threading.Thread(
            target=self._decode_window,
            args=(self._begun, self._begun + window),
            name="decode-ahead",
            daemon=True,
        )
        self._begun += window
        self._windows.append(thread)
        thread.start()

    def _decode_window(self, number: int, stop: int) -> None:
        """Decodes the blocks from `number` on, and before `stop`."""
        try:
            for ref, rows in self._execute(number, stop):
                with self._changed:
                    if self._closed:
                        return
                    self._ready[number] = Block(number, ref, rows)
                    self._rows += self._size - rows
                    self._decode_ahead()
                    self._changed.notify_all()
                number += 1
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _execute(self, start: int, stop: int) -> Iterator[tuple[Any, int]]:
        quiet_ray_data()
        decode = functools.partial(_decode_task, plan_ref=[self._plan_ref], book=self._book)
        # from_items makes its blocks in the driver; other sources start tasks of one CPU, which
        # wait for ever where the actors leave less than that.
        numbers = list(range(start, stop))
        dataset = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
            decode,
            batch_size=None,
            num_cpus=self._decode_cpus,
            zero_copy_batch=True,
            **self._placed,
        )
        dataset.context.execution_options.preserve_order = True
        return block_references(dataset)


def read_remote(batch: ClipBatch) -> Clips:
    """The pixels of a batch whose blocks are in the object store; one slice is not copied."""
    blocks = ray.get([part.block for part in batch.slices])
    first = batch.first
    parts = []
    for part, block in zip(batch.slices, blocks, strict=True):
        table = block.slice(part.start, len(part))
        parts.append(
            Clips(
                frames=_tensor_column(table, "frames"),
                aspects=table["aspects"].to_numpy(),
                stream_indices=table["stream_indices"].to_numpy(),
                first=first,
                motion=_tensor_column(table, "motion") if "motion" in table.column_names else None,
            )
        )
        first += len(part)
    return concatenate(parts)


def _tensor_column(table: Any, name: str) -> np.ndarray:
    column = table[name].combine_chunks()
    chunk = column.chunk(0) if hasattr(column, "num_chunks") else column
    return chunk.to_numpy_ndarray()


@functools.cache
def process_decoder() -> DecoderProcess:
    """One decoder per Ray worker process, kept between tasks."""
    return DecoderProcess()


def _decode_task(
    numbers: dict[str, np.ndarray], plan_ref: list[Any], book: QuarantineBook
) -> dict[str, np.ndarray]:
    plan: BlockPlan = ray.get(plan_ref[0])
    clips = decode_block(plan, int(numbers["item"][0]), process_decoder(), book)
    columns = {
        "frames": clips.frames,
        "aspects": clips.aspects,
        "stream_indices": clips.stream_indices,
    }
    return columns if clips.motion is None else columns | {"motion": clips.motion}


def quiet_ray_data() -> None:
    """Neither progress bars nor start-up notes from Ray Data in this process."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # we raise what it prints
