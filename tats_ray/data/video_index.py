"""Where the frames of a video are in its stream, and which decoder reads them exactly.

Frame n is the n-th picture that decoding the whole stream in order gives. decord counts pictures
from the keyframe that it jumps to, so it is exact only where every keyframe begins a closed group
of pictures. PyAV is told each picture's time stamp, so it may begin at any packet from which the
wanted pictures come out exactly. Where time stamps cannot be trusted, pictures are counted from the
first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tats_ray.data.access_points import begins_exactly, is_broken_link, nal_length

# decord | PyAV from the nearest packet | PyAV from the first packet
Reading = Literal["decord", "seek", "in_order"]

MISSING_FRAMES = 2  # containers often hold a packet or two more than can be decoded
_REORDERED = 32  # no codec shows a picture further from its place in the stream
_HEAD = 40  # frames that are looked at; more than are reordered
# These store when each picture is shown; others leave it to FFmpeg's guess.
_STAMPED = frozenset({"mov", "matroska", "mpegts"})
_DECORD_CONTAINERS = frozenset({"mov", "matroska"})
_DECORD_CODECS = frozenset(
    {"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "vp8", "vp9", "mjpeg"}
)


class _Packet(NamedTuple):
    pts: int
    dts: int | None
    flagged: bool  # as a keyframe, by the container
    shown: bool  # not cut off by an edit list
    begins: bool  # as `begins_exactly`


class Entry(NamedTuple):
    """A packet at which decoding may begin."""

    stamp: int  # presentation time
    target: int  # where a search for it leads to, in the stream's time
    first: int  # this frame and all later ones are exact


@dataclass(frozen=True)
class VideoIndex:
    frames: int
    reading: Reading
    stamps: tuple[int, ...] = ()  # presentation times of all frames, ascending; empty: unknown
    entries: tuple[Entry, ...] = ()  # ascending

    def entry(self, number: int) -> Entry | None:
        """The last entry from which a frame comes out exactly; None: the first packet."""
        return next((e for e in reversed(self.entries) if e.first <= number), None)


class LostFrameError(ValueError):
    """A frame that the index promises does not come out of the decoder."""


def video_index(path: str) -> VideoIndex:
    """Looks at every packet, and decodes both ends; known videos are not read again.

    Raises:
        ValueError: there is no video, or it cannot be decoded.
        av.FFmpegError: the file or its stream is damaged.
    """
    status = Path(path).stat()
    return _confirmed(path, (status.st_size, status.st_mtime_ns))


def seek_index(path: str) -> VideoIndex:
    """As `video_index` without decoding, for a video that was looked at when it was prepared."""
    status = Path(path).stat()
    return _stamped(path, (status.st_size, status.st_mtime_ns))


def read_frames(path: str, index: VideoIndex, numbers: Iterable[int]) -> Iterator[tuple[int, Any]]:
    """The decoded frames of these numbers, ascending, each once.

    Raises:
        LostFrameError: one of them does not come.
        av.FFmpegError: the stream is damaged.
    """
    import av

    wanted = sorted(set(numbers))
    with av.open(path) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for entry, group in groupby(wanted, index.entry):
            missing = dict.fromkeys(group)
            for number, frame in _numbered(container, stream, index, entry):
                if number in missing:
                    del missing[number]
                    yield number, frame
                if not missing or number > max(missing):
                    break
            if missing:
                raise LostFrameError(f"frame {min(missing)} of {index.frames} cannot be decoded")


def _numbered(
    container: Any, stream: Any, index: VideoIndex, entry: Entry | None
) -> Iterator[tuple[int, Any]]:
    """Frames from an entry on with their numbers, without those that are not exact."""
    if not index.stamps:
        yield from enumerate(container.decode(stream))
        return
    places = {stamp: number for number, stamp in enumerate(index.stamps)}
    first = 0 if entry is None else entry.first
    for packet in _packets_from(container, stream, entry):
        for frame in packet.decode():
            if (number := places.get(frame.pts, -1)) >= first:
                yield number, frame


def _packets_from(container: Any, stream: Any, entry: Entry | None) -> Iterator[Any]:
    if entry is None or entry.first == 0:
        yield from container.demux(stream)
        return
    container.seek(entry.target, stream=stream)
    begun = False
    for packet in container.demux(stream):
        begun = begun or packet.pts == entry.stamp
        if begun:
            yield packet
    if not begun:
        raise LostFrameError(f"frame {entry.first} cannot be found by its time stamp")


@lru_cache(maxsize=1024)
def _confirmed(path: str, identity: tuple[int, int]) -> VideoIndex:
    """Compares what the packets promise with the pictures at both ends of the video."""
    index = _stamped(path, identity)
    frames = _decodable(path, index) if index.stamps else 0
    if frames:
        return replace(index, frames=frames)
    frames = sum(1 for _ in played_frames(path))
    if frames == 0:
        raise ValueError("holds no video frames")
    return VideoIndex(frames, "in_order")


def _decodable(path: str, index: VideoIndex) -> int:
    """Frames that come out up to the end; 0 where they are not those of the index."""
    import av

    head = tuple(frame.pts for frame in islice(played_frames(path), _HEAD))
    if not head or head != index.stamps[: len(head)]:
        return 0
    entry = index.entry(index.frames - 1)
    first = found = 0 if entry is None else entry.first
    try:
        for number, _ in read_frames(path, index, range(first, index.frames)):
            if number != found:
                return 0
            found += 1
    except (LostFrameError, av.FFmpegError):
        if found == first or index.frames - found > MISSING_FRAMES:
            return 0
    return found


def played_frames(path: str) -> Iterator[Any]:
    """All frames in the order in which decoding gives them."""
    import av

    with av.open(path) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        yield from container.decode(stream)


@lru_cache(maxsize=1024)
def _stamped(path: str, identity: tuple[int, int]) -> VideoIndex:
    """What the packets say; without stamps where these cannot tell the frames apart."""
    import av

    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError("holds no video stream")
        stream = container.streams.best("video")
        codec = stream.codec_context.codec.canonical_name
        kinds = frozenset(container.format.name.split(","))
        packets = _packets(container, stream, codec)
    if packets is None or not _sane(packets, kinds):
        return VideoIndex(0, "in_order")
    skipped = _undecodable_head(path, packets)
    stamps = sorted(packet.pts for packet in packets if packet.shown)[skipped:]
    entries = tuple(_entries(packets, stamps))
    decord = (
        codec in _DECORD_CODECS
        and not kinds.isdisjoint(_DECORD_CONTAINERS)
        and skipped == 0
        and _all_closed(packets)
    )
    return VideoIndex(len(stamps), "decord" if decord else "seek", tuple(stamps), entries)


def _packets(container: Any, stream: Any, codec: str) -> list[_Packet] | None:
    """All packets in coded order; None where they cannot be told to be pictures that are shown."""
    length = nal_length(codec, stream.codec_context.extradata)
    packets: list[_Packet] = []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        data = bytes(packet) if packet.is_keyframe else b""
        if packet.pts is None or is_broken_link(codec, data, length):
            return None
        begins = packet.is_keyframe and begins_exactly(codec, data, length)
        shown = not packet.is_discard
        packets.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, shown, begins))
    return packets


def _sane(packets: list[_Packet], kinds: frozenset[str]) -> bool:
    """Whether the time stamps tell the frames apart and put them in an order that can be."""
    stamps = [packet.pts for packet in packets]
    if not stamps or len(set(stamps)) < len(stamps):
        return False
    moved = np.abs(_ranks(packets) - np.arange(len(stamps))).max()
    return bool(moved <= (0 if kinds.isdisjoint(_STAMPED) else _REORDERED))


def _ranks(packets: list[_Packet]) -> np.ndarray:
    """Place of each packet in the order shown, int64 [packets]."""
    return np.argsort(np.argsort(np.array([packet.pts for packet in packets])))


def _undecodable_head(path: str, packets: list[_Packet]) -> int:
    """Frames at the beginning that need pictures from before it (a file cut out of another)."""
    stamps = sorted(packet.pts for packet in packets if packet.shown)
    if not stamps or packets[0].pts <= stamps[0]:
        return 0
    first = next((frame.pts for frame in played_frames(path)), None)
    return stamps.index(first) if first in stamps else 0


def _entries(packets: list[_Packet], stamps: list[int]) -> Iterator[Entry]:
    latest = packets[0].pts - 1  # presentation time so far
    for packet in packets:
        first = int(np.searchsorted(stamps, packet.pts))
        if packet.begins and packet.pts > latest and first < len(stamps):
            target = packet.pts if packet.dts is None else min(packet.dts, packet.pts)
            yield Entry(packet.pts, target, first)
        latest = max(latest, packet.pts)


def _all_closed(packets: list[_Packet]) -> bool:
    """Whether every keyframe begins a closed group of pictures, and can be found by its time.

    decord searches by presentation time in a list of decoding times: a keyframe that is decoded
    before the last one is shown would be taken for that.
    """
    keys = [place for place, packet in enumerate(packets) if packet.flagged]
    ranks = _ranks(packets)
    closed = all(packets[key].begins and ranks[key] == key for key in keys)
    found = all(
        (decoded := packets[later].dts) is None or decoded > packets[key].pts
        for key, later in pairwise(keys)
    )
    return closed and found and keys[:1] == [0] and all(packet.shown for packet in packets)
