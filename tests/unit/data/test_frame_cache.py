"""Frames that were decoded once are those of every later decoding."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from tats_ray.data import decode
from tats_ray.data.decode import DecodeRequest, decode_clips
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.errors import StorageError, VideoDecodeError
from tests.numbered_videos import SIZE, plain, read_number, write_numbered, x264

KINDS = {
    "decord": x264(".mp4", 12, 2),
    "seek": x264(".mp4", 12, 2, "open-gop=1"),
    "in_order": plain("mpeg4", ".avi", 12, 2),
}


def _request(path, cache, starts=(0.0, 0.4, 0.999)):
    return DecodeRequest(str(path), 4, 3, list(starts), *SIZE, "auto", cache=str(cache))


@pytest.mark.parametrize("kind", KINDS)
def test_cached_clips_are_those_of_decoding(kind, tmp_path):
    path = write_numbered(tmp_path, KINDS[kind])
    request = _request(path, tmp_path / "cache")
    wanted = decode_clips(replace(request, cache=None)).frames
    for _ in range(2):
        assert np.array_equal(decode_clips(request).frames, wanted)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.suffix == ".npy"


def test_a_cached_video_is_not_decoded_again(tmp_path, monkeypatch):
    path = write_numbered(tmp_path, KINDS["decord"])
    first = decode_clips(_request(path, tmp_path / "cache", (0.0,))).frames
    monkeypatch.setattr(decode, "_decord_reader", None)  # would fail
    again = decode_clips(_request(path, tmp_path / "cache", (0.0, 0.5))).frames
    assert np.array_equal(again[0], first[0])
    assert read_number(again[1, 0]) > 0


def test_another_file_under_the_name_or_another_size_is_decoded(tmp_path):
    path = write_numbered(tmp_path, KINDS["decord"])
    request = _request(path, tmp_path / "cache")
    decode_clips(request)
    os.utime(path, ns=(1, 1))
    decode_clips(request)
    decode_clips(replace(request, height=24))
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_damaged_cache_file_is_named_and_no_fault_of_the_video(tmp_path):
    path = write_numbered(tmp_path, KINDS["decord"])
    request = _request(path, tmp_path / "cache")
    decode_clips(request)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    decoder = DecoderProcess()
    with pytest.raises(StorageError, match=rf"{file.name}: cannot be read \(.*\); remove it"):
        decoder.decode(request, 20)
    np.save(file, np.zeros(3))
    with pytest.raises(StorageError, match=f"{file.name}: is not a file of decoded frames"):
        decoder.decode(request, 20)
    decoder.close()


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_video(tmp_path):
    path = write_numbered(tmp_path, KINDS["decord"])
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(StorageError, match="a file is in the way of a folder"):
        decode_clips(_request(path, tmp_path / "cache"))


def test_a_damaged_video_leaves_nothing_in_the_cache(tmp_path):
    path = write_numbered(tmp_path, KINDS["decord"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(VideoDecodeError):
        decode_clips(_request(path, tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("*"))
