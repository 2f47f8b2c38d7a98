"""Re-encodes videos so that they decode fast and carry motion vectors of one frame each.

H.264 with a keyframe every 12 frames, one reference, no B-frames, the container's rotation applied
and a constant frame rate, with every frame at the time when it is shown. Sound is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tats_ray.data.decode import keeps_time_stamps
from tats_ray.data.each_video import VIDEO_SECONDS, each_video
from tats_ray.data.prepare import Entry
from tats_ray.data.video_writer import open_h264
from tats_ray.errors import ManifestError, VideoDecodeError
from tats_ray.storage import converting, writing

GOP_FRAMES = 12
CRF = 23
_FALLBACK_RATE = Fraction(25)
_HIGHEST_RATE = 240
_LONGEST_HOLD = 60  # seconds; a longer gap between two frames is taken for damage
_MISSING_FRAMES = 2  # containers often promise a frame or two more than they hold


@dataclass(frozen=True)
class Conversion:
    """One video to re-encode."""

    source: Path
    target: Path
    short_side: int  # pixels of the shorter side afterwards
    # Names what is written aside: whoever asks removes it where the writing process is ended.
    asker: int = field(default_factory=os.getpid)

    @property
    def aside(self) -> Path:
        return self.target.with_name(f".{self.target.stem}.{self.asker}.mp4")


class Reencoded(NamedTuple):
    """The re-encoded videos with their labels, and what is missing from them."""

    entries: list[Entry]
    failures: list[VideoDecodeError]


def reencode_entries(
    entries: Sequence[Entry],
    source: Path,
    folder: Path,
    short_side: int,
    seconds: float = VIDEO_SECONDS,
) -> Reencoded:
    """Re-encodes videos in parallel processes, each to the same relative path below a folder.

    A target that is newer than its source and of the asked size is kept. Targets are written aside
    and renamed, so that one that exists is complete.

    Args:
        source: folder or list file that the videos' paths are relative to; a video that lies
            elsewhere keeps its whole path below the folder.
        seconds: time limit of one video.

    Raises:
        ManifestError: the folder lies among the videos, or two of them would become one file.
    """
    base = Path(os.path.normpath((source if source.is_dir() else source.parent).absolute()))
    conversions = [
        Conversion(entry.path.absolute(), _target(entry.path.absolute(), base, folder), short_side)
        for entry in entries
    ]
    _check_targets(conversions, source, folder)
    reasons = each_video(_reencode_one, conversions, "re-encoding", seconds)
    done, failures = [], []
    for entry, conversion, reason in zip(entries, conversions, reasons, strict=True):
        if reason is None:
            done.append(Entry(conversion.target, entry.label, entry.origin))
        else:
            conversion.aside.unlink(missing_ok=True)
            failures.append(VideoDecodeError(str(conversion.source), reason))
    return Reencoded(done, failures)


def reencode(conversion: Conversion) -> None:
    """Re-encodes one video; aside first.

    Raises:
        VideoDecodeError: it cannot be decoded to its end.
        StorageError: the disc is full or read-only.
    """
    import av

    source, target = conversion.source, conversion.target
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with converting(target):
            _convert(conversion)
            conversion.aside.replace(target)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoDecodeError(str(source), str(error).splitlines()[0]) from None
    finally:
        conversion.aside.unlink(missing_ok=True)


def _target(path: Path, base: Path, folder: Path) -> Path:
    path = Path(os.path.normpath(path))
    below = path.relative_to(base) if path.is_relative_to(base) else path.relative_to(path.anchor)
    return folder.absolute() / below.with_suffix(".mp4")


def _check_targets(conversions: Sequence[Conversion], source: Path, folder: Path) -> None:
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise ManifestError(f"{folder}: lies within {source}; re-encode to a folder outside it")
    owners: dict[Path, Path] = {}
    for path, target in ((c.source, c.target) for c in conversions):
        if target.resolve() == path.resolve():
            raise ManifestError(f"{path}: would be overwritten; re-encode to another folder")
        other = owners.setdefault(target, path)
        if other != path:
            raise ManifestError(f"{path} and {other} would both become {target}; rename one")


def _reencode_one(conversion: Conversion) -> str | None:
    try:
        if not _is_current(conversion):
            reencode(conversion)
    except VideoDecodeError as error:
        return error.reason
    return None


def _is_current(conversion: Conversion) -> bool:
    import av

    source, target = conversion.source, conversion.target
    if not source.is_file():
        raise VideoDecodeError(str(source), "no such file")
    if not target.is_file() or target.stat().st_mtime_ns <= source.stat().st_mtime_ns:
        return False
    try:
        with av.open(str(target)) as container:
            codec = container.streams.video[0].codec_context
            return min(codec.width, codec.height) == conversion.short_side
    except (av.FFmpegError, OSError, IndexError):
        return False


def _convert(conversion: Conversion) -> None:
    import av
    from av.video.frame import PictureType

    with av.open(str(conversion.source)) as container:
        if not container.streams.video:
            raise ValueError("holds no video stream")
        stream = container.streams.best("video")  # as the decoders
        clock = _Clock(_rate(stream), keeps_time_stamps(str(conversion.source)))
        promised = stream.frames
        with av.open(str(conversion.aside), "w") as output:
            encoder = None
            for number, frame in enumerate(_at_constant_rate(container.decode(stream), clock)):
                upright = _upright(frame)
                if encoder is None:
                    height, width = _even_size(upright, conversion.short_side)
                    encoder = open_h264(output, clock.rate, height, width, GOP_FRAMES, CRF)
                picture = upright.reformat(
                    width=encoder.width, height=encoder.height, format="yuv420p"
                )
                picture.pts, picture.time_base = number, 1 / clock.rate
                picture.pict_type = PictureType.NONE  # else the encoder repeats the source's
                output.mux(encoder.encode(picture))
            if encoder is None:
                raise ValueError("holds no video frames")
            output.mux(encoder.encode())
    if promised - clock.frames > _MISSING_FRAMES:
        raise ValueError(f"ends after {clock.frames} of {promised} frames")


def _at_constant_rate(frames: Iterable[Any], clock: _Clock) -> Iterator[Any]:
    """What is shown at each tick: a frame stays until the next; of several the first counts."""
    ticks, before = 0, None
    for frame in frames:
        place = clock.place(frame.time)
        if place >= ticks:
            yield from [before] * (place - ticks)
            yield frame
            ticks = place + 1
        before = frame


def _rate(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.base_rate or _FALLBACK_RATE
    return rate if rate <= _HIGHEST_RATE else _FALLBACK_RATE  # a clock, not frames


class _Clock:
    """Places of frames in a video of constant rate: by their times, or one after the other."""

    def __init__(self, rate: Fraction, stamped: bool) -> None:
        """Args: stamped: whether the times mean anything."""
        self.rate = rate
        self.frames = 0
        self._stamped = stamped
        self._first: float | None = None
        self._place = -1

    def place(self, time: float | None) -> int:
        """The tick of the next frame; its time is in seconds.

        Raises:
            ValueError: the time is nonsense.
        """
        self.frames += 1
        if not self._stamped or time is None:
            self._place += 1
            return self._place
        if self._first is None:
            self._first = time
        place = round((time - self._first) * self.rate)
        if not -1 <= place - self._place <= _LONGEST_HOLD * self.rate:
            raise ValueError(f"the time stamps jump to {time:.2f} s at frame {self.frames}")
        self._place = place
        return place


def _upright(frame: Any) -> Any:
    """The frame as it is to be shown."""
    import av

    if frame.rotation % 90:
        raise ValueError(f"is shown rotated by {frame.rotation} degrees")
    if not frame.rotation:
        return frame
    image = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")


def _even_size(frame: Any, short_side: int) -> tuple[int, int]:
    """Height and width with the shorter side as asked and the other to the nearest even number."""
    share = short_side / min(frame.width, frame.height)
    height, width = (2 * max(1, round(side * share / 2)) for side in (frame.height, frame.width))
    return height, width
