"""The stream of clips in one process, for serial mode."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from tats_ray.data.clips import Batcher, Block, ClipBatch, Clips, Cursor, concatenate
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.stage import BlockPlan, Quarantine, decode_block


class SerialClipStream:
    """Decodes one block ahead, in the decoder process, while the caller computes."""

    def __init__(self, plan: BlockPlan, cursor: Cursor, quarantine: Quarantine) -> None:
        self._plan = plan
        self._decoder = DecoderProcess()
        self._quarantine = quarantine
        self._ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode-ahead")
        self._batcher = Batcher(self._blocks(cursor.block), cursor)

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        """The next batch of good clips.

        Raises:
            TooManyBrokenVideosError: there are hardly any.
        """
        return self._batcher.next_batch(first, clips)

    def close(self) -> None:
        """Gives up the block that is being decoded."""
        self._decoder.abandon()
        self._ahead.shutdown(cancel_futures=True)
        self._decoder.close()

    def _blocks(self, number: int) -> Iterator[Block]:
        decode = partial(decode_block, self._plan, decoder=self._decoder, book=self._quarantine)
        pending = self._ahead.submit(decode, number)
        while True:
            clips = pending.result()
            pending = self._ahead.submit(decode, number + 1)
            if not len(clips):
                self._plan.check_broken(self._quarantine.known())
            yield Block(number, clips, len(clips))
            number += 1


def read_local(batch: ClipBatch) -> Clips:
    """The pixels of a batch whose blocks are in this process."""
    first = batch.first
    parts = []
    for part in batch.slices:
        rows = part.block.rows(part.start, part.stop)
        parts.append(replace(rows, first=first))
        first += len(part)
    return concatenate(parts)
