"""Frames of a clip and videos of the stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.data.sampling import (
    frame_indices,
    jittered_segment_indices,
    manifest_rows,
    segment_indices,
    temporal_starts,
    window_indices,
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
    for epoch in range(3):
        places = np.arange(epoch * videos, (epoch + 1) * videos)
        assert sorted(manifest_rows(places, videos, seed)) == list(range(videos))


@given(videos=st.integers(1, 30), first=st.integers(0, 200), count=st.integers(1, 70))
def test_the_stream_is_one_sequence(videos, first, count):
    places = np.arange(first + count)
    whole = manifest_rows(places, videos, 5)
    assert np.array_equal(manifest_rows(places[first:], videos, 5), whole[first:])


def test_epochs_and_seeds_differ():
    epoch = np.arange(50)
    order = manifest_rows(epoch, 50, 0)
    assert not np.array_equal(order, manifest_rows(epoch + 50, 50, 0))
    assert not np.array_equal(order, manifest_rows(epoch, 50, 1))


def test_a_start_belongs_to_a_position():
    positions = np.arange(40)
    assert np.array_equal(
        temporal_starts(7, positions)[12:20], temporal_starts(7, positions[12:20])
    )


@pytest.mark.parametrize(
    ("total", "start", "wanted"),
    [
        # What VideoMAE's rule gives, worked out by hand: floor(k * 64 / 15) from the start on.
        (300, 0.0, [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]),
        (74, 0.95, [9, 13, 17, 21, 26, 30, 34, 38, 43, 47, 51, 55, 60, 64, 68, 72]),
        # A video of 32 frames: 8 of them from the first to the last, which is held.
        (32, 0.5, [0, 4, 9, 13, 18, 22, 27, 31, *[31] * 8]),
        (64, 0.5, [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]),
        (3, 0.5, [2] * 16),
    ],
)
def test_fine_tuning_windows_are_videomaes(total, start, wanted):
    assert window_indices(total, 16, 4, start).tolist() == wanted


@given(total=st.integers(1, 400), frames=st.integers(1, 32), stride=st.integers(1, 8),
       start=st.floats(0, 1, exclude_max=True))  # fmt: skip
def test_windows_lie_in_the_video(total, frames, stride, start):
    indices = window_indices(total, frames, stride, start)
    assert indices.dtype == np.int64 and len(indices) == frames
    assert (np.diff(indices) >= 0).all()
    assert indices.min() >= 0 and indices.max() < total


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
    whole = manifest_rows(np.arange(videos * repeats), videos, seed, repeats)
    assert (whole.reshape(videos, repeats) == whole.reshape(videos, repeats)[:, :1]).all()
    assert sorted(whole[::repeats]) == list(range(videos))
    places = np.arange(first + count)
    longer = manifest_rows(places, videos, seed, repeats)
    assert np.array_equal(manifest_rows(places[first:], videos, seed, repeats), longer[first:])
