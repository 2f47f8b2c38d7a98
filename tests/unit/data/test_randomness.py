"""A clip's random numbers depend on the clip alone."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.data.randomness import Stream, global_generators, gumbel_rows, uniform_rows

counts = st.integers(1, 40)


@given(seed=st.integers(0, 2**31 - 1), first=st.integers(0, 2**45), rows=counts, width=counts,
       cut=st.integers(0, 40), lane=st.integers(0, 9))  # fmt: skip
def test_rows_do_not_depend_on_how_they_are_asked_for(seed, first, rows, width, cut, lane):
    cut = min(cut, rows)
    whole = uniform_rows(seed, Stream.MASK, first, rows, width, lane)
    parts = [
        uniform_rows(seed, Stream.MASK, first, cut, width, lane),
        uniform_rows(seed, Stream.MASK, first + cut, rows - cut, width, lane),
    ]
    assert np.array_equal(whole, np.concatenate(parts))


def test_streams_lanes_seeds_and_rows_differ():
    base = uniform_rows(1, Stream.MASK, 0, 1, 64)
    others = [
        uniform_rows(2, Stream.MASK, 0, 1, 64),
        uniform_rows(1, Stream.AUGMENT, 0, 1, 64),
        uniform_rows(1, Stream.MASK, 1, 1, 64),
        uniform_rows(1, Stream.MASK, 0, 1, 64, lane=1),
    ]
    for other in others:
        assert not np.intersect1d(base, other).size


def test_numbers_are_uniform():
    table = uniform_rows(0, Stream.MASK, 0, 2000, 50).ravel()
    counts, _ = np.histogram(table, bins=20, range=(0, 1))
    expected = table.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees, p = .001


def test_gumbel_noise_has_the_distributions_mean_and_variance():
    table = gumbel_rows(0, Stream.MASK, 0, 2000, 100)
    assert abs(table.mean() - 0.5772) < 0.01
    assert abs(table.var() - np.pi**2 / 6) < 0.03


def test_threads_take_turns_with_the_global_generators():
    """What one thread draws is what it would draw alone, whatever the others do meanwhile."""

    def draw(seed: int) -> list[float]:
        with global_generators(seed):
            drawn = []
            for _ in range(200):
                drawn.append(random.random())
                time.sleep(0)  # lets the others in
            return drawn

    alone = [draw(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, range(8))) == alone
