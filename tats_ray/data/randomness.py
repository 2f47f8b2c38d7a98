"""Counter-based random rows: clip i of a stream gets the same numbers whoever asks for them.

Rollout workers, Train workers, serial mode and a restarted process all draw the same crop and the
same mask noise for the same clip, however the batch is split among them and without any state to
checkpoint.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from enum import IntEnum

import numpy as np

_WORDS_PER_COUNT = 4  # Philox4x64 makes four 64-bit words per counter value


class Stream(IntEnum):
    """Purposes that draw random numbers; each has an independent stream."""

    TEMPORAL = 1
    AUGMENT = 2
    MASK = 3
    TARGET = 4
    DROPOUT = 5
    RAND_AUGMENT = 6
    ERASING = 7
    MIXING = 8
    SLICES = 9


def uniform_rows(
    seed: int, stream: Stream, first: int, rows: int, width: int, lane: int = 0
) -> np.ndarray:
    """Rows `first` .. `first + rows - 1` of an endless table of uniform numbers.

    Args:
        first: index of the first row, a clip's place in the run.
        lane: sub-stream, such as the draw of a clip.

    Returns:
        float64 [rows, width] in [0, 1).
    """
    counts = -(-width // _WORDS_PER_COUNT)
    bits = np.random.Philox(key=np.array([seed, (int(stream) << 32) | lane], dtype=np.uint64))
    bits.advance(first * counts)
    table = np.random.Generator(bits).random((rows, counts * _WORDS_PER_COUNT))
    return table[:, :width]


def gumbel_rows(
    seed: int, stream: Stream, first: int, rows: int, width: int, lane: int = 0
) -> np.ndarray:
    """Standard Gumbel noise, float32 [rows, width]: top-k of logits + noise draws without
    replacement from softmax(logits), in Plackett-Luce order."""
    uniform = uniform_rows(seed, stream, first, rows, width, lane)
    return -np.log(-np.log(np.maximum(uniform, 1e-300))).astype(np.float32)


def torch_seed(seed: int, stream: Stream, first: int) -> int:
    """Seed of a library's own generator for a clip, or a batch that begins with clip `first`."""
    return int(np.random.SeedSequence([seed, int(stream), first]).generate_state(1)[0])


_GLOBAL_GENERATORS = threading.Lock()


@contextlib.contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Python's and numpy's global generators at a seed for a while: timm draws from these.

    One thread at a time has them: clips are decoded, and augmented, beside the training step.
    """
    with _GLOBAL_GENERATORS:
        python, legacy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
