"""Real odd and broken files, one by one, through the decoder process that runs use."""

from __future__ import annotations

import os
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from tats_ray.data.container import probe_video
from tats_ray.data.datasets.lists import folder_entries
from tats_ray.data.decode import DecodeRequest, decode_clips
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.isolated import IsolatedProcess
from tats_ray.data.prepare import prepare
from tats_ray.data.reencode import Conversion, reencode
from tats_ray.errors import ManifestError, VideoDecodeError

ODD = [
    "decord_unordered.mov", "decord_video_0.mov", "decord_video_180.mov", "decord_video_270.mov",
    "decord_video_90.mov", "derived_av1.mkv", "derived_hevc.mp4", "derived_long_gop.mp4",
    "derived_mjpeg.mov", "derived_mpeg2.mpg", "derived_mpeg4_xvid.avi", "derived_one_frame.mp4",
    "derived_vfr.mp4", "derived_vfr_gap2s.mkv", "derived_vp8.webm", "derived_vp9.webm",
]  # fmt: skip
BROKEN = [
    "decord_corrupted.mp4", "derived_audio_only.mp4", "derived_bitflips_mid.mp4",
    "derived_faststart_truncated_60pct.mp4", "derived_lfs_pointer.mp4",
    "derived_text_renamed.mp4", "derived_truncated_half.mp4", "zero_bytes.webm",
]  # fmt: skip
# decord cannot read AV1, and miscounts frames of these AVI and MPEG files.
DECORD_CANNOT = {"derived_av1.mkv", "derived_mpeg2.mpg", "derived_mpeg4_xvid.avi"}
SECONDS = 5  # the time limit of one file


@pytest.fixture(scope="module")
def robust(shared_data):
    return shared_data / "robust"


@pytest.fixture(scope="module")
def process():
    process = IsolatedProcess("re-encoding", "--video-seconds")
    yield process
    process.close()


@pytest.fixture(scope="module")
def decoder():
    process = DecoderProcess()
    yield process
    process.close()


def _request(path, decoder="auto", frames=4, stride=3, starts=(0.0,), size=(32, 64)):
    return DecodeRequest(str(path), frames, stride, list(starts), *size, decoder)


def test_no_file_is_forgotten(robust):
    assert sorted(path.name for path in (robust / "odd_valid").iterdir()) == ODD
    assert sorted(path.name for path in (robust / "broken").iterdir()) == BROKEN


def _played(path, size):
    """All frames in the order shown, upright: uint8 [F, H, W, 3]."""
    height, width = size
    with av.open(str(path)) as container:
        frames = [
            np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            for frame in container.decode(container.streams.best("video"))
        ]
    return np.stack([cv2.resize(frame, (width, height)) for frame in frames]).astype(int)


STARTS = (0.0, 0.5, 0.8)


@pytest.mark.parametrize("name", ODD)
def test_odd_videos_give_the_frames_that_were_asked_for(robust, decoder, name):
    """Whatever codec and container, forwards from the start and after seeking."""
    path = robust / "odd_valid" / name
    played = _played(path, (32, 64))
    request = _request(path, starts=STARTS)
    got = decoder.decode(request, SECONDS).frames
    assert got.shape == (3, 4, 32, 64, 3)
    for clip, wanted in zip(got, request.indices(len(played)), strict=True):
        for picture, index in zip(clip.astype(int), wanted, strict=True):
            distance = np.abs(played - picture).mean(axis=(1, 2, 3))
            assert distance[index] <= distance.min() + 1, (index, int(distance.argmin()))


@pytest.mark.parametrize("name", sorted(DECORD_CANNOT))
def test_what_decord_cannot_do_pyav_does_and_decord_alone_refuses(robust, decoder, name):
    path = robust / "odd_valid" / name
    with pytest.raises(VideoDecodeError, match="decord"):
        decoder.decode(_request(path, "decord"), SECONDS)
    auto = decoder.decode(_request(path, starts=STARTS), SECONDS).frames
    pyav = decoder.decode(_request(path, "pyav", starts=STARTS), SECONDS).frames
    assert np.array_equal(auto, pyav)


@pytest.mark.parametrize(("name", "sideways"), [("0", False), ("90", True), ("180", False),
                                                ("270", True)])  # fmt: skip
@pytest.mark.parametrize("which", ["decord", "pyav"])
def test_rotated_videos_stand_upright(robust, name, sideways, which):
    """A phone's own scene differs between the files; the decoded picture must be the stored one
    turned by the container's angle, which is counted anticlockwise."""
    path = robust / "odd_valid" / f"decord_video_{name}.mov"
    info = probe_video(path)
    assert (info.width, info.height) == ((320, 568) if sideways else (568, 320))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        stored, turns = frame.to_ndarray(format="rgb24"), frame.rotation // 90
    assert turns % 4 == {"0": 0, "90": 3, "180": 2, "270": 1}[name]
    got = decode_clips(_request(path, which, 1, 1, size=(info.height, info.width))).frames[0, 0]
    wanted = np.rot90(stored, turns)
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted.astype(int)).mean() < 2


@pytest.mark.parametrize("name", BROKEN)
def test_broken_videos_are_one_typed_error_each(robust, decoder, name):
    path = robust / "broken" / name
    errors = []
    for start in (0.0, 0.5, 0.999):  # some are whole up to their damage
        try:
            decoder.decode(_request(path, starts=[start]), SECONDS)
        except VideoDecodeError as error:
            errors.append(error)
    assert errors
    for error in errors:
        assert error.path == str(path)
        assert error.reason and "took more than" not in error.reason
        assert "\n" not in str(error)


def test_preparing_the_broken_ones_refuses_each(robust, tmp_path):
    """Also those that hold a readable beginning: both ends are decoded."""
    sound = tmp_path / "videos" / "sound.mp4"
    sound.parent.mkdir()
    sound.symlink_to(robust / "odd_valid" / "derived_vfr.mp4")
    broken = folder_entries(robust / "broken")
    made = prepare([*broken, *folder_entries(sound.parent)], tmp_path / "m.parquet")
    assert [failure.path.rsplit("/", 1)[1] for failure in made.failures] == BROKEN
    assert [row.path for row in made.rows] == [str(sound)]
    with pytest.raises(ManifestError, match="none of 8 videos can be read; the first: "):
        prepare(broken, tmp_path / "none.parquet")


def _numbered(path, gaps, rate=25):
    """Frame i is of grey value 8 i and shown `gaps[i]` ticks of 1 / rate after the one before."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        tick = 0
        for number, gap in enumerate(gaps):
            grey = np.full((32, 64, 3), 8 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            tick += gap
            frame.pts, frame.time_base = tick, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _greys(frames):
    return np.round(frames.mean(axis=(1, 2, 3)) / 8).astype(int).tolist()


UNEVEN = [0, 1, 3, 1, 1, 50, 1, 1, 2, 1, 1, 1, 5, 1, 1, 1]


@pytest.mark.parametrize("which", ["decord", "pyav"])
def test_frames_are_counted_in_the_order_shown_whatever_their_times(tmp_path, which):
    """Variable rates and gaps change when a frame is shown, not which one is the n-th."""
    path = _numbered(tmp_path / "uneven.mp4", UNEVEN)
    got = decode_clips(_request(path, which, frames=5, stride=3)).frames[0]
    assert _greys(got) == [0, 3, 6, 9, 12]


def test_reencoding_gives_every_frame_the_time_it_was_shown(tmp_path, process):
    """So a clip out of the copy runs at the speed of the scene; a gap holds the frame before it."""
    source, target = _numbered(tmp_path / "a.mp4", UNEVEN), tmp_path / "out" / "a.mp4"
    reencode(process, Conversion(source, target, 32), SECONDS)
    info = probe_video(target)
    with av.open(str(source)) as container:
        frames = [(frame.time, grey) for grey, frame in enumerate(container.decode(video=0))]
    got = _greys(decode_clips(_request(target, "pyav", info.frames, 1)).frames[0])
    for tick, grey in enumerate(got):
        # Nothing from half a tick later on, and nothing that was replaced half a tick before.
        oldest = max((n for time, n in frames if time <= (tick - 0.5) / info.fps), default=0)
        newest = max(n for time, n in frames if time <= (tick + 0.5) / info.fps)
        assert oldest <= grey <= newest, tick
    assert len(got) == pytest.approx(frames[-1][0] * info.fps, abs=2)


@pytest.mark.parametrize("gaps", [[0, 1, 1, 4000, 1], [0, 1, 1, 1]])
def test_reencoding_refuses_time_stamps_that_cannot_be(tmp_path, process, gaps):
    """A gap of minutes is damage; even times are no fault."""
    source, target = _numbered(tmp_path / "a.mp4", gaps), tmp_path / "out" / "a.mp4"
    if max(gaps) == 1:
        reencode(process, Conversion(source, target, 32), SECONDS)
        assert probe_video(target).frames == len(gaps)
        return
    with pytest.raises(VideoDecodeError, match=r"time stamps jump to 160\.08 s at frame 4"):
        reencode(process, Conversion(source, target, 32), SECONDS)
    assert not target.exists()


def test_a_pipe_in_the_place_of_a_video_does_not_hang(tmp_path, decoder):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoDecodeError, match=r"is a pipe \(FIFO\), not a video file"):
        decoder.decode(_request(tmp_path / "pipe.mp4"), SECONDS)
