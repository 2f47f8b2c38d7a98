"""What a video container says of its video, and how far that can be trusted."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tats_ray.data.isolated import Answer
from tats_ray.data.video_index import Reading, video_index
from tats_ray.errors import VideoDecodeError

REPAIR = "re-encode it with tats-ray prepare --reencode, or leave it out"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_MATROSKA = b"\x1a\x45\xdf\xa3"
_QUICKTIME = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"})


@dataclass(frozen=True)
class VideoInfo:
    frames: int  # that decode, not the header's promise
    fps: float
    width: int  # as shown, after the container's rotation
    height: int
    reading: Reading  # which decoder reads it exactly
    bytes: int  # of the file
    mtime_ns: int  # when it was changed last


def probe_video(path: Path) -> VideoInfo:
    """Looks at every packet of a video, and decodes both its ends.

    Raises:
        VideoDecodeError: the file has no decodable video stream.
    """
    import av

    status = regular_file(str(path))
    try:
        index = video_index(str(path))
        with av.open(str(path)) as container:
            stream = container.streams.best("video")  # as the decoders
            fps = float(stream.average_rate or stream.base_rate or 0)
            frame = next(container.decode(stream))
            sideways = quarter_turns(frame) % 2
    except StopIteration:
        raise VideoDecodeError(str(path), "holds no video frames") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = f"{str(error).splitlines()[0]}; {REPAIR}"
        raise VideoDecodeError(str(path), reason) from None
    if fps <= 0:
        raise VideoDecodeError(str(path), "does not state a frame rate")
    width, height = frame.width, frame.height
    if sideways:
        width, height = height, width
    found = (index.frames, fps, width, height, index.reading)
    return VideoInfo(*found, status.st_size, status.st_mtime_ns)


def regular_file(path: str) -> os.stat_result:
    """The status of a file that can be read as a video; a pipe would hang its reader.

    Raises:
        VideoDecodeError: what it is instead.
        OSError: the file system does not say.
    """
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise VideoDecodeError(path, "no such file") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise VideoDecodeError(path, "is a loop of symbolic links") from None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise VideoDecodeError(path, f"is {kind}, not a video file; leave it out")
    if status.st_size == 0:
        raise VideoDecodeError(path, "file is empty")
    return status


def probe(path: str) -> Answer:
    """`probe_video` for an isolated process: the fields of a VideoInfo."""
    return Answer(asdict(probe_video(Path(path))))


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
