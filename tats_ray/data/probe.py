"""What a video file says of itself, checked by decoding its first frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tats_ray.errors import VideoDecodeError


@dataclass(frozen=True)
class VideoInfo:
    frames: int  # counted packets, not the header's promise
    fps: float
    width: int  # as shown, after the container's rotation
    height: int


def probe_video(path: Path) -> VideoInfo:
    """Reads a video's properties.

    Raises:
        VideoDecodeError: the file has no decodable video stream.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoDecodeError(str(path), "holds no video stream")
            stream = container.streams.best("video")  # as the decoders
            fps = float(stream.average_rate or stream.base_rate or 0)
            frame = next(container.decode(stream))
            sideways = int(getattr(frame, "rotation", 0)) % 180 != 0
        with av.open(str(path)) as container:
            packets = container.demux(container.streams.best("video"))
            frames = sum(1 for packet in packets if packet.size)
    except StopIteration:
        raise VideoDecodeError(str(path), "holds no video frames") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoDecodeError(str(path), str(error).splitlines()[0]) from None
    if fps <= 0:
        raise VideoDecodeError(str(path), "tells no frame rate")
    width, height = frame.width, frame.height
    return VideoInfo(frames, fps, *((height, width) if sideways else (width, height)))
