"""Does something to each video of a set in parallel processes; a file that crashes or hangs one
costs that process and no other file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from rich.console import Console
from rich.progress import track

from tats_ray.errors import ComponentFailedError, StorageError

Item = TypeVar("Item")
Job = Callable[[Item], str | None]

VIDEO_SECONDS = 600.0  # enough for half an hour of video
_BATCH = 256  # videos that wait in memory for a process
_START_SECONDS = 120  # a cold start on a busy machine with files on a network
_CRASHED = "its process died: the file crashes the decoder; leave it out"
# Not fork: the caller may already run threads.
_CONTEXT = get_context("spawn")


def each_video(job: Job[Item], items: Sequence[Item], title: str, seconds: float) -> list[Any]:
    """Runs a job on every item, with progress on a terminal.

    Args:
        job: gives the reason why it failed, or None; importable by name, for it runs elsewhere.
        title: what is done, for the progress line and messages.
        seconds: time limit of one item. Native code may hang where no limit within its process
            reaches, so the process is ended.

    Returns:
        The job's answers in order; a crash or a passed limit is an answer too.

    Raises:
        StorageError: what a job makes cannot be written.
        ComponentFailedError: no process can be started; that is no item's fault.
    """
    console = Console(stderr=True)
    return list(
        track(
            _answers(job, items, title, seconds),
            title,
            total=len(items),
            console=console,
            disable=not console.is_terminal,
        )
    )


def _answers(
    job: Job[Item], items: Sequence[Item], title: str, seconds: float
) -> Iterator[str | None]:
    count = min(os.cpu_count() or 1, len(items))
    workers = [_Worker(job, title, seconds) for _ in range(count)]
    free: SimpleQueue[_Worker[Item]] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def ask(item: Item) -> str | None:
        worker = free.get()
        try:
            return worker.ask(item)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(max(1, count))
    try:
        for first in range(0, len(items), _BATCH):
            yield from threads.map(ask, items[first : first + _BATCH])
    finally:  # also where one item's error ends the work: what waits is not begun
        threads.shutdown(cancel_futures=True)
        for worker in workers:
            worker.close()


class _Worker(Generic[Item]):
    """A process that works off one item at a time; started on demand and after a loss."""

    def __init__(self, job: Job[Item], title: str, seconds: float) -> None:
        self._job = job
        self._title = title
        self._seconds = seconds
        self._child: Any = None
        self._pipe: Connection | None = None

    def ask(self, item: Item) -> str | None:
        """The job's answer; raises as `each_video`."""
        pipe = self._pipe or self._start()
        try:
            pipe.send(item)
            if not pipe.poll(self._seconds):
                self.close()
                return (
                    f"{self._title} took more than {self._seconds:g} s; leave it out, or raise "
                    "--video-seconds"
                )
            reply = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            self.close()
            return _CRASHED
        if "storage" in reply:  # every further video would meet the same full disc
            raise StorageError(reply["storage"])
        answer: str | None = reply["answer"]
        return answer

    def close(self) -> int | None:
        """Ends the process, whatever it does; returns its exit status."""
        if self._child is None or self._pipe is None:
            return None
        self._pipe.close()  # it leaves at end of file, unless it is at work
        self._child.join(0.2)
        self._child.kill()
        self._child.join()
        status: int | None = self._child.exitcode
        self._child = self._pipe = None
        return status

    def _start(self) -> Connection:
        """Imports take their time, which no item's limit has to bear."""
        self._pipe, theirs = _CONTEXT.Pipe()
        self._child = _CONTEXT.Process(target=_serve, args=(theirs, self._job), daemon=True)
        self._child.start()
        theirs.close()
        try:
            if self._pipe.poll(_START_SECONDS):
                self._pipe.recv_bytes()
                return self._pipe
        except (EOFError, OSError):
            pass
        status = self.close()
        raise ComponentFailedError(
            f"no process for {self._title} can be started (status {status}); see the lines above"
        )


def _serve(pipe: Connection, job: Job[Any]) -> None:
    """The process: an item in, an answer out. Its first message says that it is ready."""
    try:
        pipe.send_bytes(b"")
        while True:
            pipe.send_bytes(json.dumps(_reply(job, pipe.recv())).encode())
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _reply(job: Job[Any], item: Any) -> dict[str, str | None]:
    try:
        return {"answer": job(item)}
    except StorageError as error:
        return {"storage": str(error)}
    except Exception as error:  # one file's odd fault must not end the work on all others
        return {"answer": f"{type(error).__name__}: {error}"}
