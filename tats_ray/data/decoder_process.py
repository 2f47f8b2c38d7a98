"""A decoder in a process of its own, so that a file that hangs or crashes it costs one file.

decord can hang inside native code, where no Python time limit reaches; a process can be killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.data.decode import DecodedClips, DecodeRequest, decode_clips
from tats_ray.data.motion.prior import MotionRequest
from tats_ray.data.probe import VideoInfo, probe_video
from tats_ray.errors import ComponentFailedError, MotionPriorError, VideoDecodeError

_START_SECONDS = 120  # a cold start on a busy machine with files on a network
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


class DecoderProcess:
    """Decodes one video at a time in a child, which is started on demand and after a loss."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._abandoned = False

    def decode(self, request: DecodeRequest, seconds: float) -> DecodedClips:
        """Decodes the clips of a video within a time limit.

        Raises:
            VideoDecodeError: also when the child passes the limit or dies.
            MotionPriorError: the motion asked for cannot be had.
            ComponentFailedError: no child can be started; that is no video's fault.
        """
        with self._asked("decode", asdict(request), request.path, seconds) as (pipe, reply):
            frames = np.frombuffer(pipe.recv_bytes(), dtype=np.uint8).reshape(reply["shape"])
            if reply["motion"] is None:
                return DecodedClips(frames, None)
            motion = np.frombuffer(pipe.recv_bytes(), dtype=np.float32)
            return DecodedClips(frames, motion.reshape(reply["motion"]))

    def probe(self, path: str, seconds: float) -> VideoInfo:
        """Reads a video's properties within a time limit; errors as `decode`."""
        with self._asked("probe", {"path": path}, path, seconds) as (_, reply):
            return VideoInfo(**reply["info"])

    @contextmanager
    def _asked(
        self, task: str, content: dict[str, Any], path: str, seconds: float
    ) -> Iterator[tuple[Connection, dict[str, Any]]]:
        """The child's reply, and the pipe that the rest of it comes through."""
        pipe = self._running_child()
        try:
            pipe.send_bytes(json.dumps({"task": task, **content}).encode())
            if not pipe.poll(seconds):
                self.close()
                raise VideoDecodeError(path, f"decoding took more than {seconds:g} s")
            reply = json.loads(pipe.recv_bytes())
            if "error" in reply:
                kind = MotionPriorError if reply["motion"] else VideoDecodeError
                raise kind(path, reply["error"])
            yield pipe, reply
        except (EOFError, OSError):
            status = self.close()
            if self._abandoned:
                raise EOFError from None
            raise VideoDecodeError(path, f"the decoder process died (status {status})") from None

    def abandon(self) -> None:
        """Ends a decoding that goes on in another thread, and every further one, with EOFError."""
        self._abandoned = True
        if (child := self._child) is not None:
            child.kill()

    def close(self) -> int | None:
        """Ends the child and returns its exit status; a later `decode` starts another."""
        if self._child is None or self._pipe is None:
            return None
        self._pipe.close()  # the child leaves at end of file, unless it hangs
        try:
            status = self._child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            status = self._child.wait()
        self._child = self._pipe = None
        return status

    def _running_child(self) -> Connection:
        if self._abandoned:
            raise EOFError
        if self._pipe is not None:
            return self._pipe
        ours, theirs = Pipe()
        path = os.pathsep.join(filter(None, [_PACKAGE_ROOT, os.environ.get("PYTHONPATH")]))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tats_ray.data.decoder_process", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # the codecs' own chatter about damaged files
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,  # Ctrl-C is meant for the command; this would look like a broken video
        )
        theirs.close()
        self._pipe = ours
        self._await_start(ours)
        return ours

    def _await_start(self, pipe: Connection) -> None:
        """Imports take their time, which no video's limit has to bear."""
        try:
            if pipe.poll(_START_SECONDS):
                pipe.recv_bytes()
                return
            reason = f"said nothing for {_START_SECONDS} s"
        except (EOFError, OSError):
            reason = "ended at once"
        status = self.close()
        raise ComponentFailedError(
            f"the decoder process {reason} (status {status}); try `python -m "
            "tats_ray.data.decoder_process 0`, which shows why"
        )


def serve(pipe: Connection) -> None:
    """The child's loop: a request in, shapes, pixels and motion (or the reason) out.

    Its first message, when everything is imported, is empty.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # `ray job stop` signals every child
        signal.signal(number, signal.SIG_IGN)
    for library in ("av", "decord"):
        with suppress(ImportError):  # each file's reason names it where it is needed
            import_module(library)
    pipe.send_bytes(b"")
    while True:
        try:
            content = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer = _TASKS[content.pop("task")](content)
        except VideoDecodeError as error:
            reply = {"error": error.reason, "motion": isinstance(error, MotionPriorError)}
            pipe.send_bytes(json.dumps(reply).encode())
            continue
        for part in answer:
            pipe.send_bytes(part)


def _decode(content: dict[str, Any]) -> list[Any]:
    if content["motion"] is not None:
        content["motion"] = MotionRequest(**content["motion"])
    clips = decode_clips(DecodeRequest(**content))
    shape = None if clips.motion is None else clips.motion.shape
    reply = json.dumps({"shape": clips.frames.shape, "motion": shape}).encode()
    parts = [part for part in clips if part is not None]
    return [reply, *(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data for part in parts)]


def _probe(content: dict[str, Any]) -> list[Any]:
    return [json.dumps({"info": asdict(probe_video(Path(content["path"])))}).encode()]


_TASKS: dict[str, Callable[[dict[str, Any]], list[Any]]] = {"decode": _decode, "probe": _probe}


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
