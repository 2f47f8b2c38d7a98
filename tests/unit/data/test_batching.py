"""Batches are consecutive good clips, whatever blocks they come in and wherever one resumes."""

from itertools import count

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.data.clips import Batcher, Block, Clips, Cursor
from tats_ray.data.serial_stream import read_local


def _clips(ids: list[int]) -> Clips:
    frames = np.array(ids, dtype=np.uint8).reshape(-1, 1, 1, 1, 1)
    return Clips(frames, np.ones(len(ids)), np.array(ids), 0)


def _blocks(sizes: list[int], first: int):
    """Block b holds as many clips as sizes says; clips are numbered through."""
    starts = np.cumsum([0, *(sizes * 50)])
    for number in count(first):
        rows = sizes[number % len(sizes)]
        yield Block(number, _clips(list(range(starts[number], starts[number] + rows))), rows)


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(any),
       batch=st.integers(1, 9), batches=st.integers(1, 5))  # fmt: skip
def test_batches_are_consecutive_and_resumable(sizes, batch, batches):
    whole = Batcher(_blocks(sizes, 0), Cursor())
    cursor = Cursor()
    for index in range(batches):
        got = whole.next_batch(index * batch, batch)
        clips = read_local(got)
        assert len(got) == len(clips) == batch
        assert clips.stream_indices.tolist() == list(range(index * batch, (index + 1) * batch))
        assert clips.first == index * batch
        resumed = Batcher(_blocks(sizes, cursor.block), cursor).next_batch(index * batch, batch)
        assert np.array_equal(read_local(resumed).stream_indices, clips.stream_indices)
        cursor = got.after


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), start=st.integers(0, 10),
       length=st.integers(1, 10))  # fmt: skip
def test_rows_of_a_batch_are_a_view(sizes, start, length):
    batch = Batcher(_blocks(sizes, 0), Cursor()).next_batch(0, 20)
    part = batch.rows(start, start + length)
    clips = read_local(part)
    assert clips.stream_indices.tolist() == list(range(start, start + length))
    assert clips.first == start
