"""The decode stage: a block of stream positions in, decoded clips and failures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from tats_ray.config.data import DataSection
from tats_ray.data.clips import Clips
from tats_ray.data.decode import DecodeRequest
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.sampling import ClipOrder, temporal_starts
from tats_ray.errors import VideoDecodeError


class QuarantineBook(Protocol):
    """Where the stage reads and writes broken videos; local, or behind the hub."""

    def known(self) -> Mapping[str, str]: ...

    def add(self, failures: list[VideoDecodeError]) -> None: ...


@dataclass(frozen=True)
class BlockPlan:
    """What a block of the stream consists of, computed where it is decoded.

    Block b covers the positions b * block_clips .. (b + 1) * block_clips - 1.
    """

    data: DataSection
    seed: int
    manifest: pa.Table

    def positions(self, block: int) -> np.ndarray:
        size = self.data.block_clips
        return np.arange(block * size, (block + 1) * size, dtype=np.int64)

    def videos(self, positions: np.ndarray) -> pa.Table:
        rows = ClipOrder(self.manifest.num_rows, self.seed).rows(int(positions[0]), len(positions))
        return self.manifest.take(rows)


def decode_block(
    plan: BlockPlan, block: int, decoder: DecoderProcess, book: QuarantineBook
) -> Clips:
    """Decodes a block; broken videos are left out and reported, never replaced.

    Returns:
        The block's good clips in stream order, perhaps none; `first` is not known here and 0.
    """
    positions = plan.positions(block)
    videos = plan.videos(positions)
    starts = temporal_starts(plan.seed, positions)
    known = book.known()
    frames, kept, failures = [], [], []
    for row, path in enumerate(videos["path"].to_pylist()):
        if path in known:
            continue
        try:
            request = _request(plan.data, path, float(starts[row]))
            frames.append(decoder.decode(request, plan.data.decode_seconds))
            kept.append(row)
        except VideoDecodeError as error:
            failures.append(error)
    if failures:
        book.add(failures)
    width, height = (videos[name].to_numpy()[kept] for name in ("width", "height"))
    shape = (0, plan.data.frames, plan.data.canvas_height, plan.data.canvas_width, 3)
    return Clips(
        frames=np.stack(frames) if frames else np.empty(shape, dtype=np.uint8),
        aspects=width / height,
        positions=positions[kept],
        first=0,
    )


def _request(data: DataSection, path: str, start: float) -> DecodeRequest:
    return DecodeRequest(
        path=path,
        frames=data.frames,
        stride=data.stride,
        start=start,
        height=data.canvas_height,
        width=data.canvas_width,
        decoder=data.decoder,
    )
