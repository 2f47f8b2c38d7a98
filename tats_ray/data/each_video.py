"""Does something to each video of a set in parallel processes, and loses none over a crash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from tats_ray.errors import StorageError

Item = TypeVar("Item")
_BATCH = 256  # videos per pool: as many must be looked at again when one crashes its process
_CRASHED = "its process died: the file crashes the decoder; leave it out"


def each_video(
    job: Callable[[Item], str | None], items: Sequence[Item], title: str
) -> list[str | None]:
    """Runs a job on every item, with progress on a terminal.

    Args:
        job: gives the reason why it failed, or None; importable by name, for it runs elsewhere.
        title: what is done, for the progress line.

    Returns:
        The job's answers in order; a crash is an answer too.

    Raises:
        StorageError: what a job makes cannot be written.
    """
    console = Console(stderr=True)
    return list(
        track(
            _answers(job, items),
            title,
            total=len(items),
            console=console,
            disable=not console.is_terminal,
        )
    )


def _answers(job: Callable[[Item], str | None], items: Sequence[Item]) -> Iterator[str | None]:
    workers = min(os.cpu_count() or 1, len(items))
    for first in range(0, len(items), _BATCH):
        batch = items[first : first + _BATCH]
        with _pool(min(workers, len(batch))) as pool:
            futures = [pool.submit(job, item) for item in batch]
            for item, future in zip(batch, futures, strict=True):
                yield _answer(job, item, future)


def _answer(
    job: Callable[[Item], str | None],
    item: Item,
    future: Future[str | None],
    alone: bool = False,
) -> str | None:
    try:
        return future.result()
    except BrokenProcessPool:
        if alone:
            return _CRASHED
    except StorageError:  # every further video would meet the same full disc
        raise
    except Exception as error:  # one file's odd fault must not end the work on all others
        return f"{type(error).__name__}: {error}"
    with _pool(1) as pool:  # the crash was this item's fault or another's: alone it shows
        return _answer(job, item, pool.submit(job, item), alone=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not fork: the caller may already run threads.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
