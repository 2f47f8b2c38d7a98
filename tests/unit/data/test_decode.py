"""Decoding gives the frames that were encoded, and one typed error for what cannot be decoded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tats_ray.data.decode import DecodeRequest, decode_clips
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.video_writer import write_h264
from tats_ray.errors import ComponentFailedError, VideoDecodeError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A video whose frame i is the grey value 8 i, so that a frame tells its number."""
    path = tmp_path_factory.mktemp("videos") / "counted clip ü.mp4"
    frames = np.broadcast_to(
        (np.arange(24, dtype=np.uint8) * 8)[:, None, None, None], (24, 32, 64, 3)
    )
    write_h264(path, frames, fps=8)
    return path


@pytest.fixture
def decoder():
    process = DecoderProcess()
    yield process
    process.close()


def _request(path, decoder="auto", frames=4, stride=3, start=0.0):
    return DecodeRequest(str(path), frames, stride, [start], 32, 64, decoder)


def _decode(request):
    return decode_clips(request).frames[0]


def _numbers(clip):
    return np.round(clip.mean(axis=(1, 2, 3)) / 8).astype(int).tolist()


@pytest.mark.parametrize("name", ["decord", "pyav"])
def test_the_asked_frames_come(counted, name):
    assert _numbers(_decode(_request(counted, name))) == [0, 3, 6, 9]
    late = _decode(_request(counted, name, start=0.999))
    assert _numbers(late) == [14, 17, 20, 23]


@pytest.mark.parametrize("name", ["decord", "pyav"])
def test_a_short_video_holds_its_last_frame(counted, name):
    clip = _decode(_request(counted, name, frames=8, stride=5))
    assert _numbers(clip) == [0, 5, 10, 15, 20, 23, 23, 23]


@pytest.mark.parametrize("name", ["decord", "pyav"])
def test_several_clips_come_out_of_one_decoding(counted, name):
    request = DecodeRequest(str(counted), 4, 3, [0.999, 0.0, 0.0], 32, 64, name)
    clips = decode_clips(request).frames
    assert [_numbers(clip) for clip in clips] == [[14, 17, 20, 23], [0, 3, 6, 9], [0, 3, 6, 9]]


@pytest.mark.parametrize("name", ["decord", "pyav"])
def test_frames_are_reduced_as_pillow_does(tmp_path, name):
    """FFmpeg's scaler filters what it reduces, so stripes of 3 rows become grey. It holds the
    outermost pixels beyond the edges, which Pillow does not."""
    rows = np.where(np.arange(240) % 3 == 0, 255, 0) * (np.arange(240) < 120)
    columns = 127 + 100 * np.sin(np.arange(320) / 6)
    picture = np.where(np.arange(240)[:, None] < 120, rows[:, None], columns).astype(np.uint8)
    write_h264(tmp_path / "fine.mp4", np.repeat(picture[None, ..., None], 3, 3), fps=8, crf=1)
    whole, small = (
        _decode(DecodeRequest(str(tmp_path / "fine.mp4"), 1, 1, [0.0], *size, name))[0]
        for size in ((240, 320), (64, 80))
    )
    wanted = np.asarray(Image.fromarray(whole).resize((80, 64), Image.Resampling.BILINEAR))
    assert np.abs(small.astype(int) - wanted)[1:-1, 1:-1].max() <= 4
    assert whole[:120].std() > 80
    assert small[4:28].std() < 12


def test_frames_come_at_the_asked_size(counted):
    clip = _decode(DecodeRequest(str(counted), 2, 1, [0.0], 20, 28, "auto"))
    assert clip.shape == (2, 20, 28, 3)
    assert clip.dtype == np.uint8


def test_the_process_gives_what_the_function_gives(counted, decoder):
    direct = _decode(_request(counted))
    assert np.array_equal(decoder.decode(_request(counted), 20).frames[0], direct)


def _truncated(source, target):
    target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])


def _empty(source, target):
    target.touch()


def _text(source, target):
    target.write_text("not a video\n" * 50)


def _audio(source, target):
    """A WAV header and silence: a container without video."""
    with wave.open(str(target), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\0" * 16000)


@pytest.mark.parametrize("spoil", [_truncated, _empty, _text, _audio])
def test_a_broken_file_is_one_typed_error_with_its_name(counted, decoder, tmp_path, spoil):
    path = tmp_path / "broken.mp4"
    spoil(counted, path)
    with pytest.raises(VideoDecodeError) as caught:
        decoder.decode(_request(path), 20)
    assert caught.value.path == str(path)
    assert caught.value.reason
    assert "\n" not in str(caught.value)
    assert _numbers(decoder.decode(_request(counted), 20).frames[0]) == [0, 3, 6, 9]


def test_a_missing_file_says_so(decoder, tmp_path):
    with pytest.raises(VideoDecodeError, match="no such file"):
        decoder.decode(_request(tmp_path / "none.mp4"), 20)


def test_a_file_that_hangs_costs_its_limit_and_nothing_else(counted, decoder):
    """A decoder that has stopped for good, as some program streams stop decord."""
    decoder.decode(_request(counted), 20)
    os.kill(decoder._process._child.pid, signal.SIGSTOP)
    with pytest.raises(VideoDecodeError, match=r"took more than 0\.5 s"):
        decoder.decode(_request(counted), 0.5)
    assert _numbers(decoder.decode(_request(counted), 20).frames[0]) == [0, 3, 6, 9]


def test_a_killed_decoder_is_replaced(counted, decoder):
    decoder.decode(_request(counted), 20)
    os.kill(decoder._process._child.pid, signal.SIGKILL)
    decoder._process._child.wait()
    with pytest.raises(VideoDecodeError, match=r"process for decoding died \(status -9\)"):
        decoder.decode(_request(counted), 20)
    assert _numbers(decoder.decode(_request(counted), 20).frames[0]) == [0, 3, 6, 9]


def test_no_decoder_outlives_its_owner(counted):
    """The child leaves when the pipe's other end is gone, however its owner ended."""
    script = (
        "import os, sys\n"
        "from tats_ray.data.decode import DecodeRequest\n"
        "from tats_ray.data.decoder_process import DecoderProcess\n"
        "decoder = DecoderProcess()\n"
        f"decoder.decode(DecodeRequest({str(counted)!r}, 2, 1, [0.0], 32, 64, 'auto'), 20)\n"
        "print(decoder._process._child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    pid = int(done.stdout)
    for _ in range(100):
        if not _alive(pid):
            return
        time.sleep(0.05)
    pytest.fail(f"decoder {pid} is still there")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_real_and_odd_videos(shared_data, decoder):
    """What must decode does, upright and in shape; what is broken is one error each."""
    for path in sorted((shared_data / "robust" / "odd_valid").iterdir()):
        assert decoder.decode(_request(path), 20).frames.shape == (1, 4, 32, 64, 3), path
    for path in sorted((shared_data / "robust" / "broken").iterdir()):
        # Some files are whole up to their damage, or between damages.
        reasons = [_failure(decoder, _request(path, start=start)) for start in (0.0, 0.5, 0.999)]
        assert any(reasons), path


def _failure(decoder, request):
    try:
        decoder.decode(request, 20)
    except VideoDecodeError as error:
        return error.reason
    return None


def test_a_decoder_that_cannot_start_blames_no_video(counted, decoder, monkeypatch, tmp_path):
    """An installation that lacks a library."""
    (tmp_path / "numpy.py").write_text("raise ImportError('no numpy')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ComponentFailedError, match=r"ended while it started \(status 1\)"):
        decoder.decode(_request(counted), 20)
