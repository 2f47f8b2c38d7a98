"""Work on video files in processes of their own: a file that hangs or crashes a library costs that
file and no other.

decord can hang inside native code, where no Python time limit reaches; a process can be killed.
Replies are JSON and raw arrays: nothing that a damaged file makes of a decoder is unpickled here.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from threading import Event
from typing import Any, NamedTuple

import numpy as np

from tats_ray.errors import (
    ComponentFailedError,
    MotionPriorError,
    StorageError,
    VideoDecodeError,
)
from tats_ray.storage import unreadable

_START_SECONDS = 120.0  # a cold start on a busy machine with files on a network
# Modules come from where this process finds them, wherever that is.
_CHILD = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from tats_ray.data.isolated import serve; serve(int(sys.argv[1]), sys.argv[2])"
)
_EXIT_SECONDS = 5.0  # from a child's last word to its exit status
# Between attempts to read a file that the file system does not give: a server may be starting anew.
_RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)


class _UnreadableError(VideoDecodeError):
    """The file system does not give a file; `reason` is what it says. Never leaves this module."""


class Answer(NamedTuple):
    """What a task returns."""

    content: Any = None  # anything that JSON can hold
    arrays: Sequence[np.ndarray] = ()


class IsolatedProcess:
    """Runs one task at a time in a child, which is started on demand and after a loss."""

    def __init__(self, title: str, limit: str) -> None:
        """Stores what messages name.

        Args:
            title: what is done.
            limit: the setting or argument that holds the time limit.
        """
        self._title = title
        self._limit = limit
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._abandoned = Event()

    def ask(
        self, task: Callable[..., Answer], path: str, arguments: Sequence[Any], seconds: float
    ) -> Answer:
        """Runs `task(path, *arguments)` in the child.

        Args:
            task: a function of a module, which the child imports.
            path: the video that the task reads.
            arguments: anything that JSON can hold.
            seconds: time limit.

        Raises:
            VideoDecodeError: the task raises it or any error that is not listed here, passes the
                limit, or ends the child.
            MotionPriorError, StorageError: the task raises it; a StorageError also where the file
                system does not give the file, and keeps to that for half a minute.
            ComponentFailedError: no child can be started; no video caused that.
            EOFError: `abandon` was called.
        """
        for wait in _RETRY_SECONDS:
            try:
                return self._ask_once(task, path, arguments, seconds)
            except _UnreadableError as error:
                sys.stderr.write(f"{path}: {error.reason}; trying again in {wait:g} s\n")
                if self._abandoned.wait(wait):
                    raise EOFError from None
        try:
            return self._ask_once(task, path, arguments, seconds)
        except _UnreadableError as error:
            raise StorageError(
                f"{path}: cannot be read: {error.reason}, also after {sum(_RETRY_SECONDS):g} s; "
                "this is no fault of the video: see to its disk or server, or leave the file out"
            ) from None

    def _ask_once(
        self, task: Callable[..., Answer], path: str, arguments: Sequence[Any], seconds: float
    ) -> Answer:
        pipe = self._pipe or self._start(task.__module__)
        try:
            request = [task.__module__, task.__qualname__, path, *arguments]
            pipe.send_bytes(json.dumps(request).encode())
            if not pipe.poll(seconds):
                self.close()
                raise VideoDecodeError(
                    path,
                    f"{self._title} took more than {seconds:g} s; leave the file out, or raise "
                    f"{self._limit}",
                )
            reply = json.loads(pipe.recv_bytes())
            if "fault" in reply:
                raise _fault(path, reply)
            return Answer(reply["content"], [_receive(pipe, *form) for form in reply["arrays"]])
        except (EOFError, OSError):
            status = self._end(_EXIT_SECONDS)
            if self._abandoned.is_set():
                raise EOFError from None
            if (reason := unreadable(path)) is not None:
                raise _UnreadableError(path, reason) from None
            raise VideoDecodeError(
                path,
                f"the process for {self._title} died (status {status}): this file crashes it; "
                "leave the file out",
            ) from None

    def abandon(self) -> None:
        """Ends a task that runs in another thread, and every further one, with EOFError."""
        self._abandoned.set()
        if (child := self._child) is not None:
            child.kill()

    def close(self) -> None:
        """Ends the child; a later `ask` starts another."""
        self._end(0.2)  # a child that is not at work leaves at end of file

    def _end(self, grace: float) -> int | None:
        """The child's exit status; it is killed where it is still there after `grace` seconds."""
        if self._child is None or self._pipe is None:
            return None
        self._pipe.close()
        try:
            status = self._child.wait(grace)
        except subprocess.TimeoutExpired:
            self._child.kill()
            status = self._child.wait()
        self._child = self._pipe = None
        return status

    def _start(self, module: str) -> Connection:
        if self._abandoned.is_set():
            raise EOFError
        ours, theirs = Pipe()
        with theirs:
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-c", _CHILD, str(theirs.fileno()), module, *sys.path],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # the codecs' own chatter about damaged files
                    process_group=0,  # Ctrl-C means the command; this would look like a bad video
                )
            except OSError as error:
                ours.close()
                raise self._unstarted("cannot be made", error.strerror, module) from None
        self._pipe = ours
        self._await_start(ours, module)
        return ours

    def _await_start(self, pipe: Connection, module: str) -> None:
        """Imports take their time, which no video's limit has to bear."""
        try:
            if pipe.poll(_START_SECONDS):
                pipe.recv_bytes()
                return
            reason = f"did not start within {_START_SECONDS:g} s"
        except (EOFError, OSError):
            reason = "ended while it started"
        status = self._end(_EXIT_SECONDS)
        if self._abandoned.is_set():
            raise EOFError
        raise self._unstarted(reason, f"status {status}", module)

    def _unstarted(self, reason: str, detail: str | None, module: str) -> ComponentFailedError:
        return ComponentFailedError(
            f"the process for {self._title} {reason} ({detail}); "
            f"`python -c 'import {module}'` shows why"
        )


def _receive(pipe: Connection, kind: str, shape: list[int]) -> np.ndarray:
    return np.frombuffer(pipe.recv_bytes(), dtype=kind).reshape(shape)


def _fault(path: str, reply: dict[str, str]) -> Exception:
    if reply["fault"] == StorageError.__name__:
        return StorageError(reply["reason"])
    kinds = {kind.__name__: kind for kind in (MotionPriorError, _UnreadableError)}
    return kinds.get(reply["fault"], VideoDecodeError)(path, reply["reason"])


def serve(descriptor: int, module: str) -> None:
    """The child's loop: a task in, its answer or the reason why there is none out.

    Its first message, when everything is imported, is empty.

    Args:
        descriptor: of the pipe.
        module: where tasks are to be found.
    """
    pipe = Connection(descriptor)
    for number in (signal.SIGTERM, signal.SIGINT):  # `ray job stop` signals every child
        signal.signal(number, signal.SIG_IGN)
    for library in ("av", "decord"):
        with suppress(ImportError):  # each file's reason names it where it is needed
            import_module(library)
    import_module(module)
    pipe.send_bytes(b"")
    while True:
        try:
            request = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        for part in _reply(*request):
            pipe.send_bytes(part)


def _reply(module: str, name: str, path: str, *arguments: Any) -> list[Any]:
    try:
        content, arrays = getattr(import_module(module), name)(path, *arguments)
    except StorageError as error:
        return [_encoded(fault=type(error).__name__, reason=str(error))]
    except Exception as error:  # one file's odd fault must not end the work on all others
        # Libraries word a server that is away as they word a damaged file.
        if (reason := unreadable(path)) is not None:
            return [_encoded(fault=_UnreadableError.__name__, reason=reason)]
        if isinstance(error, VideoDecodeError):
            return [_encoded(fault=type(error).__name__, reason=error.reason)]
        return [_encoded(fault="", reason=f"{type(error).__name__}: {error}")]
    forms = [[array.dtype.str, array.shape] for array in arrays]
    raw = (np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays)
    return [_encoded(content=content, arrays=forms), *raw]


def _encoded(**reply: Any) -> bytes:
    return json.dumps(reply).encode()
