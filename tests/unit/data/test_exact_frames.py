"""Clips hold the frames that were asked for, whatever codec, groups of pictures and container.

The reference is decoding every frame in order. Frames carry their number in their pixels.
"""

from __future__ import annotations

import dataclasses
from itertools import product

import av
import numpy as np
import pytest

from tats_ray.data.container import probe_video
from tats_ray.data.datasets.lists import folder_entries
from tats_ray.data.decode import DecodeRequest, PreparedVideo, decode_clips
from tats_ray.data.motion.vectors import vector_fields
from tats_ray.data.prepare import _check_frames, prepare
from tats_ray.errors import VideoDecodeError
from tests.numbered_videos import (
    SIZE,
    picture,
    plain,
    read_number,
    write_numbered,
    x264,
    x265,
)

STARTS = (0.0, 0.13, 0.31, 0.52, 0.77, 0.93, 0.999)
STRIDES = (1, 2, 5)
MP4, MKV, TS, AVI = ".mp4", ".mkv", ".ts", ".avi"
OPEN, REFRESH, PYRAMID = "open-gop=1", "intra-refresh=1", "b-pyramid=normal"

# Each kind of stream once -> what reads it.
KINDS = [
    (x264(MP4, 12, 2), "decord"),
    (x264(MKV, 250, 3, PYRAMID), "decord"),
    (x264(MP4, 12, 2, OPEN), "seek"),
    (x264(MKV, 2, 3, OPEN), "seek"),
    (x264(TS, 12, 3, PYRAMID), "seek"),
    (x264(".mov", 12, 0, REFRESH), "seek"),
    (x264(MP4, 48, 2, REFRESH), "seek"),
    (x264(MP4, 40, 3, PYRAMID, (10, 11, 12, 30, 32)), "seek"),  # keyframes side by side
    (x264(AVI, 12, 0), "seek"),
    (x264(AVI, 12, 2), "in_order"),
    (x265(MP4, 12, 3), "decord"),
    (x265(MKV, 12, 3, OPEN), "seek"),
    (plain("mpeg4", MP4, 12), "decord"),
    (plain("mpeg4", MP4, 12, 2), "seek"),
    (plain("mpeg4", AVI, 12, 2), "in_order"),
    (plain("mpeg2video", MP4, 12, 2), "seek"),
    (plain("mpeg2video", ".mpg", 12, 2), "in_order"),
    (plain("libvpx", ".webm", 12), "decord"),
    (plain("libvpx-vp9", ".webm", 12), "decord"),
    (plain("mjpeg", ".mov", 1), "decord"),
    (plain("libsvtav1", MP4, 12), "seek"),
]
_FORMS = ("", OPEN, REFRESH, PYRAMID)
GRID = [
    *(x264(*c) for c in product(
        (MP4, ".mov", MKV, TS, AVI), (2, 5, 12, 48, 250), (0, 2, 3), _FORMS)),
    *(x265(*c, f"open-gop={o}") for c, o in product(
        product((MP4, ".mov", MKV, TS), (2, 5, 12, 48), (0, 2, 3)), (0, 1))),
    *(plain("mpeg4", *c) for c in product((MP4, ".mov", MKV, TS, AVI), (2, 5, 12, 250), (0, 2, 3))),
    *(plain("mpeg2video", *c) for c in product((MP4, MKV, TS, ".mpg"), (2, 12), (0, 2))),
    *(plain(*c) for c in product(("libvpx", "libvpx-vp9"), (".webm", MKV), (2, 12, 250))),
    *(plain("libsvtav1", *c) for c in product((MP4, MKV, ".webm"), (2, 12, 48))),
]  # fmt: skip


def _in_order(path):
    with av.open(str(path)) as container:
        frames = container.decode(container.streams.best("video"))
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def _prepared(path):
    info = probe_video(path)
    return PreparedVideo(info.reading, info.frames, info.bytes, info.mtime_ns)


def _check(path, decoder="auto"):
    """Numbers, pictures and count, with what was found when preparing and without."""
    ordered = _in_order(path)
    numbers = [read_number(frame) for frame in ordered]
    prepared = _prepared(path)
    assert prepared.frames == len(ordered)
    for stride, known in product(STRIDES, (prepared, None)):
        request = DecodeRequest(str(path), 8, stride, list(STARTS), *SIZE, decoder, prepared=known)
        wanted = request.indices(len(ordered))
        got = decode_clips(request).frames
        assert [[read_number(frame) for frame in clip] for clip in got] == [
            [numbers[place] for place in clip] for clip in wanted
        ], (stride, prepared.reading)
        assert np.abs(got.astype(int) - ordered[wanted]).mean() < 2
    return prepared.reading


@pytest.mark.parametrize(("coding", "reading"), KINDS, ids=str)
def test_each_kind_of_stream(tmp_path, coding, reading):
    path = write_numbered(tmp_path, coding)
    assert [read_number(frame) for frame in _in_order(path)] == list(range(60))
    assert _check(path) == reading
    assert _check(path, "pyav") == reading


@pytest.mark.slow
@pytest.mark.parametrize("coding", GRID, ids=str)
def test_all_kinds_of_streams(tmp_path, coding):
    _check(write_numbered(tmp_path, coding, frames=96))


@pytest.mark.parametrize(("coding", "reading"), [k for k in KINDS if k[1] != "decord"], ids=str)
def test_decord_refuses_what_it_does_not_read_exactly(tmp_path, coding, reading):
    path = write_numbered(tmp_path, coding)
    with pytest.raises(VideoDecodeError, match=r"data\.decoder=auto, or re-encode it"):
        decode_clips(DecodeRequest(str(path), 4, 1, [0.5], *SIZE, "decord"))


def _remuxed(source, target, first=0, shift=0):
    """The packets from the `first` on, of which an edit list cuts off the first `shift` frames."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = given.streams.video[0]
        output = made.add_stream_from_template(stream)
        ticks = shift * int(1 / (25 * stream.time_base))
        for packet in [packet for packet in given.demux(stream) if packet.size][first:]:
            packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, output
            made.mux(packet)
    return target


@pytest.mark.parametrize("form", ["", OPEN])
def test_frames_that_an_edit_list_cuts_off_do_not_count(tmp_path, form):
    source = write_numbered(tmp_path, x264(MP4, 12, 2, form))
    path = _remuxed(source, tmp_path / "cut.mp4", shift=5)
    assert [read_number(frame) for frame in _in_order(path)] == list(range(5, 60))
    assert _check(path) == "seek"


@pytest.mark.parametrize("coding", [x264(MKV, 12, 3, OPEN), x265(MKV, 12, 3, OPEN),
                                    plain("mpeg4", MKV, 12, 2)], ids=str)  # fmt: skip
def test_a_stream_that_begins_in_the_middle_of_another(tmp_path, coding):
    """Pictures at its beginning that need what was cut off do not count."""
    source = write_numbered(tmp_path, coding)
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    second = [place for place, packet in enumerate(packets) if packet.is_keyframe][1]
    _check(_remuxed(source, tmp_path / "middle.mkv", first=second))


def _replaced(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize("coding", [x264(MP4, 12, 2, OPEN), plain("mpeg4", MP4, 12)], ids=str)
def test_a_container_that_takes_every_frame_for_a_keyframe(tmp_path, coding):
    """Without the list of keyframes (stss) every packet is flagged as one."""
    path = _replaced(write_numbered(tmp_path, coding), b"stss", b"free")
    assert _check(path) == "seek"


def test_pictures_behind_a_broken_link_are_not_counted(tmp_path):
    """HEVC marks where a stream was spliced; its leading pictures are never shown."""
    path = write_numbered(tmp_path, x265(TS, 12, 3, OPEN))
    cra, broken_link = b"\0\0\1\x2a\1", b"\0\0\1\x20\1"
    assert _check(_replaced(path, cra, broken_link)) == "in_order"
    assert len(_in_order(path)) < 60


@pytest.mark.parametrize(("coding", "reading"), [
    (x264(MP4, 12, 2, OPEN), "seek"), (x264(".mov", 12, 2, REFRESH), "seek"),
    (x264(AVI, 12, 2), "in_order"), (plain("mpeg4", MP4, 12, 2), "seek"),
], ids=str)  # fmt: skip
def test_codec_motion_belongs_to_the_same_frames(tmp_path, coding, reading):
    """A video that rests in its first half moves in no frame of it."""
    path = write_numbered(tmp_path, coding, number=lambda frame: max(0, frame - 30))
    fields = vector_fields(str(path), 4)
    assert len(fields) == probe_video(path).frames == 60
    speed = np.abs(fields).mean(axis=(1, 2, 3))
    assert speed[:29].max() < 0.1 * speed[33:].mean()


def test_checking_frames_names_what_is_not_exact(tmp_path):
    """As if the structure had been misread: an open group given to decord."""
    path = write_numbered(tmp_path, x264(MP4, 12, 2, OPEN))
    sound = prepare(folder_entries(tmp_path), tmp_path / "m.parquet", check=True)
    assert [row.reading for row in sound.rows] == ["seek"]
    (row,) = sound.rows
    with pytest.raises(VideoDecodeError, match=r"a clip gives frame \d+ for frame \d+; re-encode"):
        _check_frames(str(path), "decord", row.frames, row.bytes, row.mtime_ns)
    with pytest.raises(VideoDecodeError, match="60 frames decode in order, 70 were promised"):
        _check_frames(str(path), "seek", 70, row.bytes, row.mtime_ns)


def test_a_replaced_video_is_named(tmp_path):
    path = write_numbered(tmp_path, x264(MP4, 12, 2))
    request = DecodeRequest(str(path), 4, 1, [0.5], *SIZE, "auto", prepared=_prepared(path))
    decode_clips(request)
    write_numbered(tmp_path, x264(MP4, 12, 2), frames=30)
    with pytest.raises(VideoDecodeError, match="was replaced since its manifest was made"):
        decode_clips(request)
    older = dataclasses.replace(request, prepared=None)
    assert read_number(decode_clips(older).frames[0, 0]) == 13


def test_every_picture_tells_its_number():
    assert [read_number(picture(number)) for number in range(256)] == list(range(256))
