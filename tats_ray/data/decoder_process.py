"""The decoder of clips, in a process of its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tats_ray.data.container import VideoInfo, probe
from tats_ray.data.decode import DecodedClips, DecodeRequest, PreparedVideo, decode_clips
from tats_ray.data.isolated import Answer, IsolatedProcess
from tats_ray.data.motion.prior import MotionRequest


class DecoderProcess:
    """Decodes one video at a time; a file that hangs or crashes the decoder costs that file."""

    def __init__(self) -> None:
        self._process = IsolatedProcess("decoding", "data.decode_seconds")

    def decode(self, request: DecodeRequest, seconds: float) -> DecodedClips:
        """Decodes the clips of a video within a time limit.

        Raises:
            VideoDecodeError: also when the process passes the limit or dies.
            MotionPriorError: the motion asked for cannot be had.
            ComponentFailedError: no process can be started; no video caused that.
        """
        answer = self._process.ask(_decode, request.path, [asdict(request)], seconds)
        frames, *motion = answer.arrays
        return DecodedClips(frames, motion[0] if motion else None)

    def probe(self, path: str, seconds: float) -> VideoInfo:
        """A video's properties; errors as `decode`."""
        return VideoInfo(**self._process.ask(probe, path, [], seconds).content)

    def abandon(self) -> None:
        """Ends a decoding that runs in another thread, and every further one, with EOFError."""
        self._process.abandon()

    def close(self) -> None:
        """Ends the process; a later `decode` starts another."""
        self._process.close()


def _decode(path: str, content: dict[str, Any]) -> Answer:
    """In the process: `content` holds the fields of a DecodeRequest."""
    motion, prepared = content["motion"], content["prepared"]
    request = {
        **content,
        "motion": None if motion is None else MotionRequest(**motion),
        "prepared": None if prepared is None else PreparedVideo(**prepared),
    }
    clips = decode_clips(DecodeRequest(**request))
    return Answer(arrays=[part for part in clips if part is not None])
