"""Many videos at once, each in an isolated process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

from tats_ray.data.isolated import IsolatedProcess
from tats_ray.errors import VideoDecodeError

Item = TypeVar("Item")
Result = TypeVar("Result")

VIDEO_SECONDS = 600.0  # time limit of tats-ray prepare; enough for half an hour of video
_WAITING = 256  # items that wait in memory for a process, or for the answer of an earlier item


def each_video(
    work: Callable[[IsolatedProcess, Item], Result], items: Sequence[Item], title: str
) -> list[Result | VideoDecodeError]:
    """Works on every item with as many isolated processes as CPUs, with progress on a terminal.

    Args:
        work: runs in a thread of this process and asks the isolated process that it is given.
        title: what is done, for the progress line and messages.

    Returns:
        What `work` returned of each item, in order, or the VideoDecodeError that it raised.

    Raises:
        StorageError: a result cannot be written; as with every other error of `work`, running
            items are ended and no further one is begun.
        ComponentFailedError: no process can be started.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    shown = console.is_terminal
    results = _results(work, items, title)
    return list(track(results, title, total=len(items), console=console, disable=not shown))


def _results(
    work: Callable[[IsolatedProcess, Item], Result], items: Sequence[Item], title: str
) -> Iterator[Result | VideoDecodeError]:
    count = max(1, min(os.cpu_count() or 1, len(items)))
    processes = [IsolatedProcess(title, "--video-seconds") for _ in range(count)]
    free: SimpleQueue[IsolatedProcess] = SimpleQueue()
    for process in processes:
        free.put(process)
    failed = Event()

    def run(item: Item) -> Result | VideoDecodeError:
        if failed.is_set():  # an earlier item's error is what the caller will see
            raise CancelledError
        process = free.get()
        try:
            return work(process, item)
        except VideoDecodeError as error:
            return error
        except BaseException:
            failed.set()
            raise
        finally:
            free.put(process)

    threads = ThreadPoolExecutor(count)
    waiting: deque[Future[Result | VideoDecodeError]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(run, item))
            if len(waiting) == _WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for process in processes:
            process.abandon()
        threads.shutdown(cancel_futures=True)
        for process in processes:
            process.close()
