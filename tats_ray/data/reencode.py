"""Re-encodes videos so that they decode fast and carry motion vectors of one frame each.

H.264 with a keyframe every 12 frames, one reference, no B-frames, the container's rotation applied
and a constant frame rate, with every frame at the time when it is shown. Sound is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tats_ray.data.container import keeps_time_stamps, quarter_turns
from tats_ray.data.datasets.annotation import Entry
from tats_ray.data.each_video import VIDEO_SECONDS, each_video
from tats_ray.data.isolated import Answer, IsolatedProcess
from tats_ray.data.video_index import MISSING_FRAMES
from tats_ray.data.video_writer import open_h264
from tats_ray.errors import ManifestError, VideoDecodeError
from tats_ray.storage import converting, replacing

GOP_FRAMES = 12
CRF = 23
_FALLBACK_RATE = Fraction(25)
_HIGHEST_RATE = 240
_LONGEST_HOLD = 60  # seconds; a longer gap between two frames is taken for damage


@dataclass(frozen=True)
class Conversion:
    """One video to re-encode."""

    source: Path
    target: Path
    short_side: int  # pixels of the shorter side afterwards


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
    outcomes = each_video(
        lambda process, conversion: _make_current(process, conversion, seconds),
        conversions,
        "re-encoding",
    )
    made = [
        replace(entry, path=conversion.target)
        for entry, conversion, outcome in zip(entries, conversions, outcomes, strict=True)
        if outcome is None
    ]
    return Reencoded(made, [fault for fault in outcomes if fault is not None])


def reencode(process: IsolatedProcess, conversion: Conversion, seconds: float) -> None:
    """Re-encodes one video in an isolated process.

    Raises:
        VideoDecodeError: it cannot be decoded to its end, or not within the time limit.
        StorageError: the disk is full or read-only.
    """
    with replacing(conversion.target) as aside:
        arguments = [str(aside), str(conversion.target), conversion.short_side]
        process.ask(_reencode, str(conversion.source), arguments, seconds)


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


def _make_current(process: IsolatedProcess, conversion: Conversion, seconds: float) -> None:
    source, target = conversion.source, conversion.target
    try:
        if not source.is_file():
            raise VideoDecodeError(str(source), "no such file")
        newer = target.is_file() and target.stat().st_mtime_ns > source.stat().st_mtime_ns
    except OSError as error:  # a folder without permission, a name too long
        raise VideoDecodeError(str(source), f"cannot be inspected ({error.strerror})") from None
    if newer:
        side = process.ask(_short_side, str(target), [], seconds).content
        if side == conversion.short_side:
            return
    reencode(process, conversion, seconds)


def _short_side(path: str) -> Answer:
    """In the process: the shorter side of an earlier copy, or None where it is no video."""
    import av

    try:
        with av.open(path) as container:
            codec = container.streams.video[0].codec_context
            return Answer(min(codec.width, codec.height))
    except (av.FFmpegError, OSError, IndexError):
        return Answer()


def _reencode(source: str, aside: str, target: str, short_side: int) -> Answer:
    """In the process: writes the copy to `aside`; `target` is what a message names."""
    import av

    try:
        with converting(Path(target)):
            _convert(source, aside, short_side)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoDecodeError(source, str(error).splitlines()[0]) from None
    return Answer()


def _convert(source: str, aside: str, short_side: int) -> None:
    import av
    from av.video.frame import PictureType

    with av.open(source) as container:
        if not container.streams.video:
            raise ValueError("holds no video stream")
        stream = container.streams.best("video")  # as the decoders
        clock = _Clock(_rate(stream), keeps_time_stamps(source))
        promised = stream.frames
        with av.open(aside, "w") as output:
            encoder = None
            for number, frame in enumerate(_at_constant_rate(container.decode(stream), clock)):
                upright = _upright(frame)
                if encoder is None:
                    height, width = _even_size(upright, short_side)
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
    if promised - clock.frames > MISSING_FRAMES:
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

    turns = quarter_turns(frame)
    if not turns:
        return frame
    image = np.rot90(frame.to_ndarray(format="rgb24"), turns)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")


def _even_size(frame: Any, short_side: int) -> tuple[int, int]:
    """Height and width with the shorter side as asked and the other to the nearest even number."""
    share = short_side / min(frame.width, frame.height)
    height, width = (2 * max(1, round(side * share / 2)) for side in (frame.height, frame.width))
    return height, width
