"""From which packets of a video decoding may begin so that its pictures come out exactly.

A container's keyframe flag does not tell: it also stands on the packet where a periodic intra
refresh begins, and on every packet where a file holds no list of keyframes. So the first bytes of
each flagged packet are read as its codec defines them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

# A codec whose every picture stands for itself.
INTRA_CODECS = frozenset({"mjpeg", "prores", "dnxhd", "png", "rawvideo", "ffvhuff", "huffyuv"})
_START_CODE = re.compile(b"\0\0\1")
_H264_IDR, _H264_SEI, _H264_SLICES = 5, 6, (1, 2, 5)
_SEI_RECOVERY_POINT = 6
_HEVC_BROKEN_LINKS = range(16, 19)  # BLA: pictures that follow it and are shown before it are lost
_HEVC_RANDOM_ACCESS = range(19, 22)  # IDR and CRA
_AV1_SEQUENCE, _AV1_FRAMES = 1, (3, 6)


def begins_exactly(codec: str, packet: bytes, length: int) -> bool:
    """Whether this picture and all that are shown after it are exact when decoding begins here.

    Args:
        codec: FFmpeg's name of it; of one that is not known here no packet is.
        length: as `nal_length`.
    """
    begins = _BEGINS.get(codec)
    return codec in INTRA_CODECS or (begins is not None and begins(packet, length))


def nal_length(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length before each unit of H.264 and HEVC packets; 0 where start codes are."""
    if not extradata or extradata[0] != 1:
        return 0
    place = {"h264": 4, "hevc": 21}.get(codec)
    return 0 if place is None or len(extradata) <= place else (extradata[place] & 3) + 1


def is_broken_link(codec: str, packet: bytes, length: int) -> bool:
    """Whether pictures that follow in the stream are never shown (HEVC, where it was cut)."""
    if codec != "hevc":
        return False
    return any(unit[0] >> 1 & 63 in _HEVC_BROKEN_LINKS for unit in _units(packet, length))


def _units(packet: bytes, length: int) -> Iterator[bytes]:
    """The packet's NAL units, of each the first 16 bytes; none is empty."""
    if length == 0:
        for match in _START_CODE.finditer(packet):
            if unit := packet[match.end() : match.end() + 16]:
                yield unit
        return
    place = 0
    while place + length < len(packet):
        size = int.from_bytes(packet[place : place + length], "big")
        place += length
        if unit := packet[place : place + min(size, 16)]:
            yield unit
        place += size


def _h264_begins(packet: bytes, length: int) -> bool:
    """An IDR picture, or one at which an encoder with open groups promises exact recovery at once.

    A recovery that takes some pictures (periodic intra refresh) is not believed: x264 without
    B-frames promises it a picture too early, and the error stays.
    """
    recovery = False
    for unit in _units(packet, length):
        kind = unit[0] & 31
        if kind == _H264_IDR:
            return True
        if kind == _H264_SEI and len(unit) > 3 and unit[1] == _SEI_RECOVERY_POINT:
            # recovery_frame_cnt is 0 (bit 1), exact_match_flag 1, broken_link_flag 0
            recovery = unit[3] >> 5 == 0b110
        elif kind in _H264_SLICES:
            return recovery
    return False


def _hevc_begins(packet: bytes, length: int) -> bool:
    kinds = (unit[0] >> 1 & 63 for unit in _units(packet, length))
    first_slice = next((kind for kind in kinds if kind < 32), None)
    return first_slice in _HEVC_RANDOM_ACCESS


def _mpeg4_begins(packet: bytes, length: int) -> bool:
    place = packet.find(b"\0\0\1\xb6")  # a VOP; two bits tell its kind, 0 is intra
    return 0 <= place < len(packet) - 4 and packet[place + 4] >> 6 == 0


def _mpeg2_begins(packet: bytes, length: int) -> bool:
    place = packet.find(b"\0\0\1\0")  # a picture; behind ten bits stands its kind, 1 is intra
    return 0 <= place < len(packet) - 5 and packet[place + 5] >> 3 & 7 == 1


def _vp8_begins(packet: bytes, length: int) -> bool:
    return packet[0] & 1 == 0


def _vp9_begins(packet: bytes, length: int) -> bool:
    bits = f"{packet[0]:08b}"
    header = bits[5:] if bits[2:4] == "11" else bits[4:]  # profile 3 has one bit more
    return bits[:2] == "10" and header[:2] == "00"  # shows no existing frame, is a keyframe


def _av1_begins(packet: bytes, length: int) -> bool:
    """A sequence header, then a keyframe that is shown."""
    place, sequence = 0, False
    while place < len(packet):
        kind, extended, sized = packet[place] >> 3 & 15, packet[place] & 4, packet[place] & 2
        place += 2 if extended else 1
        size, place = _leb128(packet, place) if sized else (len(packet) - place, place)
        sequence = sequence or kind == _AV1_SEQUENCE
        if kind in _AV1_FRAMES:
            return sequence and place < len(packet) and packet[place] >> 4 == 1
        place += size
    return False


def _leb128(packet: bytes, place: int) -> tuple[int, int]:
    """A number of AV1, and the place behind it."""
    value = shift = 0
    while place < len(packet):
        byte = packet[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            break
    return value, place


_BEGINS: dict[str, Callable[[bytes, int], bool]] = {
    "h264": _h264_begins,
    "hevc": _hevc_begins,
    "mpeg4": _mpeg4_begins,
    "mpeg1video": _mpeg2_begins,
    "mpeg2video": _mpeg2_begins,
    "vp8": _vp8_begins,
    "vp9": _vp9_begins,
    "av1": _av1_begins,
}
