"""What a video container says of its video, and how far that can be trusted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tats_ray.data.isolated import Answer
from tats_ray.errors import VideoDecodeError

# Containers often promise a frame or two more than they hold; the last frame stands in for those.
MISSING_FRAMES = 2

_MATROSKA = b"\x1a\x45\xdf\xa3"
_QUICKTIME = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"})


@dataclass(frozen=True)
class VideoInfo:
    frames: int  # counted packets, not the header's promise
    fps: float
    width: int  # as shown, after the container's rotation
    height: int


def probe_video(path: Path) -> VideoInfo:
    """Reads a video's properties, and decodes its first frame.

    Raises:
        VideoDecodeError: the file has no decodable video stream.
    """
    import av

    try:
        frames = count_frames(str(path))
        with av.open(str(path)) as container:
            stream = container.streams.best("video")  # as the decoders
            fps = float(stream.average_rate or stream.base_rate or 0)
            frame = next(container.decode(stream))
            sideways = quarter_turns(frame) % 2
    except StopIteration:
        raise VideoDecodeError(str(path), "holds no video frames") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoDecodeError(str(path), str(error).splitlines()[0]) from None
    if fps <= 0:
        raise VideoDecodeError(str(path), "does not state a frame rate")
    width, height = frame.width, frame.height
    return VideoInfo(frames, fps, *((height, width) if sideways else (width, height)))


def probe(path: str) -> Answer:
    """`probe_video` for an isolated process: the fields of a VideoInfo."""
    return Answer(asdict(probe_video(Path(path))))


def count_frames(path: str) -> int:
    """Packets of the video stream, without decoding them.

    Raises:
        ValueError: there is no video stream.
    """
    import av

    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError("holds no video stream")
        return sum(1 for packet in container.demux(container.streams.best("video")) if packet.size)


def quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that make a decoded frame stand as it is to be shown, 0 to 3.

    Raises:
        ValueError: the container asks for another angle.
    """
    if frame.rotation % 90:
        raise ValueError(f"is shown rotated by {frame.rotation} degrees; leave it out")
    return int(frame.rotation) // 90 % 4


def keeps_time_stamps(path: str) -> bool:
    """Whether the container stores when each frame is shown, told by the file's first bytes.

    True for MP4, MOV and their kin, Matroska and WebM; False for AVI, MPEG streams and others.
    """
    with Path(path).open("rb") as file:
        head = file.read(8)
    return head[:4] == _MATROSKA or head[4:] in _QUICKTIME
