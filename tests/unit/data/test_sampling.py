"""Frames of a clip and videos of the stream."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.data.sampling import (
    ClipOrder,
    frame_indices,
    jittered_segment_indices,
    segment_indices,
    temporal_starts,
)


@given(total=st.integers(1, 400), frames=st.integers(1, 32), stride=st.integers(1, 8),
       start=st.floats(0, 1, exclude_max=True))  # fmt: skip
def test_frames_are_in_the_video_and_evenly_spaced(total, frames, stride, start):
    indices = frame_indices(total, frames, stride, start)
    assert len(indices) == frames
    assert indices.min() >= 0
    assert indices.max() < total
    if total >= (frames - 1) * stride + 1:
        assert (np.diff(indices) == stride).all()
    else:  # too short: from the first frame, the last one held
        assert np.array_equal(indices, np.minimum(np.arange(frames) * stride, total - 1))


def test_every_start_is_reached():
    starts = {int(frame_indices(20, 8, 2, u)[0]) for u in np.linspace(0, 0.999, 200)}
    assert starts == set(range(6))


@given(videos=st.integers(1, 30), seed=st.integers(0, 99))
def test_every_epoch_is_a_permutation(videos, seed):
    order = ClipOrder(videos, seed)
    for epoch in range(3):
        assert sorted(order.rows(epoch * videos, videos)) == list(range(videos))


@given(videos=st.integers(1, 30), first=st.integers(0, 200), count=st.integers(1, 70))
def test_the_stream_is_one_sequence(videos, first, count):
    whole = ClipOrder(videos, 5).rows(0, first + count)
    assert np.array_equal(ClipOrder(videos, 5).rows(first, count), whole[first:])


def test_epochs_and_seeds_differ():
    order = ClipOrder(50, 0)
    assert not np.array_equal(order.rows(0, 50), order.rows(50, 50))
    assert not np.array_equal(order.rows(0, 50), ClipOrder(50, 1).rows(0, 50))


def test_a_start_belongs_to_a_position():
    positions = np.arange(40)
    assert np.array_equal(
        temporal_starts(7, positions)[12:20], temporal_starts(7, positions[12:20])
    )


@given(total=st.integers(1, 10**6), frames=st.integers(1, 64),
       start=st.floats(0, 1, exclude_max=True))  # fmt: skip
def test_every_segment_gives_one_of_its_frames(total, frames, start):
    edges = np.arange(frames + 1) * total / frames
    first, behind = np.floor(edges[:-1] - 1e-6), np.ceil(edges[1:] + 1e-6)  # sums are rounded
    for find in (segment_indices, jittered_segment_indices):
        indices = find(total, frames, start)
        assert indices.dtype == np.int64 and len(indices) == frames
        assert ((indices >= first) & (indices < behind)).all()
        assert indices.min() >= 0 and indices.max() < total


@given(videos=st.integers(1, 30), repeats=st.integers(1, 5), first=st.integers(0, 60),
       count=st.integers(1, 60), seed=st.integers(0, 9))  # fmt: skip
def test_repeats_stand_side_by_side_and_every_video_comes_once_an_epoch(
    videos, repeats, first, count, seed
):
    order = ClipOrder(videos, seed, repeats)
    whole = order.rows(0, videos * repeats)
    assert (whole.reshape(videos, repeats) == whole.reshape(videos, repeats)[:, :1]).all()
    assert sorted(whole[::repeats]) == list(range(videos))
    assert np.array_equal(order.rows(first, count), order.rows(0, first + count)[first:])
