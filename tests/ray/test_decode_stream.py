"""How far the decode tasks go ahead of who takes their blocks."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest

from tats_ray.actors.decode_stream import RayClipStream, read_remote
from tats_ray.data.clips import Cursor
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import Quarantine, build_plan
from tests.conftest import tiny_config

pytestmark = pytest.mark.usefixtures("cluster")

WINDOW, BLOCK = 4, 4


def _stream(synthetic, clips, broken=()):
    config = tiny_config(f"data.prefetch_blocks={WINDOW}", f"data.block_clips={BLOCK}")
    rows = read_manifest(synthetic.train).to_pylist()
    plan = build_plan(config, pa.Table.from_pylist(rows))
    # What is known to be broken is left out, as a file that was found to be.
    book = Quarantine({rows[number]["path"]: "broken" for number in broken})
    return RayClipStream(plan, Cursor(), book, decode_cpus=0.5, wait_seconds=60, clips=clips)


def test_windows_overlap_and_keep_their_bound(synthetic):
    with closing(_stream(synthetic, None)) as stream:
        seen, begun = [], []
        for number in range(3 * WINDOW):
            batch = stream.next_batch(number * BLOCK, BLOCK)
            seen.append(read_remote(batch).stream_indices)
            begun.append(stream._begun - number - 1)
    assert np.concatenate(seen).tolist() == list(range(3 * WINDOW * BLOCK)), "in order, each once"
    assert max(begun) <= 2 * WINDOW
    assert min(begun[:-1]) >= 1, "the next window has begun before the last block is taken"


def test_nothing_is_decoded_behind_the_last_clip(synthetic):
    with closing(_stream(synthetic, 6 * BLOCK - 1)) as stream:
        for number in range(5):
            stream.next_batch(number * BLOCK, BLOCK)
        stream.next_batch(5 * BLOCK, BLOCK - 1)
        assert stream._begun == 6


def test_what_broken_videos_leave_missing_comes_from_blocks_behind(synthetic):
    clips = 5 * BLOCK  # as many as there are videos
    with closing(_stream(synthetic, clips, broken=range(0, 20, 4))) as stream:
        got = [read_remote(stream.next_batch(first, BLOCK)) for first in range(0, clips, BLOCK)]
    indices = np.concatenate([clips.stream_indices for clips in got])
    assert len(indices) == clips and (np.diff(indices) > 0).all()
    assert indices[-1] >= clips, "of the second epoch"
