"""A file that the file system does not give is neither a broken video nor a dead decoder."""

from __future__ import annotations

import numpy as np
import pytest

from tats_ray.data import isolated
from tats_ray.data.decode import DecodeRequest
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.manifest import read_manifest
from tats_ray.errors import StorageError, VideoDecodeError
from tats_ray.storage import unreadable

# Opening a link to this fails with an error of the system (ENAMETOOLONG), as root too.
NOWHERE = "x" * 300


def _request(path):
    return DecodeRequest(str(path), 4, 1, [0.0], 32, 32, "auto")


@pytest.fixture
def decoder():
    found = DecoderProcess()
    yield found
    found.close()


@pytest.fixture
def link(tmp_path):
    found = tmp_path / "video.mp4"
    found.symlink_to(NOWHERE)
    return found


def test_a_file_that_comes_back_is_decoded(decoder, link, synthetic, capfd, monkeypatch):
    video = read_manifest(synthetic.train)["path"][0].as_py()
    wanted = decoder.decode(_request(video), 60)

    def waits():
        yield 0.1
        link.unlink()  # between the first attempt and the second
        link.symlink_to(video)
        yield 0.1

    monkeypatch.setattr(isolated, "_RETRY_SECONDS", waits())
    got = decoder.decode(_request(link), 60)
    assert np.array_equal(got.frames, wanted.frames)
    assert f"{link}: File name too long; trying again in 0.1 s" in capfd.readouterr().err


def test_a_file_that_stays_away_ends_the_work(decoder, link, monkeypatch):
    monkeypatch.setattr(isolated, "_RETRY_SECONDS", (0.1, 0.2))
    with pytest.raises(StorageError, match=r"video\.mp4: cannot be read: File name too long, also"):
        decoder.decode(_request(link), 60)


def test_what_is_not_there_or_is_damaged_is_the_videos_fault(decoder, tmp_path):
    (tmp_path / "noise.mp4").write_bytes(b"noise" * 1000)
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    for name in ("noise.mp4", "loop.mp4", "missing.mp4", "noise.mp4/clip.mp4"):
        assert unreadable(str(tmp_path / name)) is None
        with pytest.raises(VideoDecodeError):
            decoder.decode(_request(tmp_path / name), 60)
