"""The decode stage leaves broken videos out, reports them once, and keeps the order of the rest."""

from __future__ import annotations

import numpy as np
import pytest

from tats_ray.data.clips import Cursor
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.manifest import ManifestRow, read_manifest, write_manifest
from tats_ray.data.serial_stream import SerialClipStream, read_local
from tats_ray.data.stage import Quarantine, build_plan, check_share, decode_block
from tats_ray.errors import ConfigError, TooManyBrokenVideosError
from tests.conftest import tiny_config

CONFIG = tiny_config()


def _stream(table, cursor=None, quarantine=None):
    plan = build_plan(CONFIG, table)
    return SerialClipStream(plan, cursor or Cursor(), quarantine or Quarantine())


@pytest.fixture
def table(synthetic):
    return read_manifest(synthetic.train)


@pytest.fixture
def damaged(table, tmp_path):
    """The same manifest with videos 3 and 11 replaced by rubbish."""
    rows = [ManifestRow(**row) for row in table.to_pylist()]
    for index in (3, 11):
        path = tmp_path / f"broken{index}.mp4"
        path.write_bytes(b"rubbish" * 100)
        rows[index] = ManifestRow(str(path), None, 10, 10.0, 32, 32)
    write_manifest(tmp_path / "damaged.parquet", rows)
    return read_manifest(tmp_path / "damaged.parquet")


def _take(stream, clips, first=0):
    batch = stream.next_batch(first, clips)
    return batch, read_local(batch)


def test_good_clips_keep_order_and_pixels(table, damaged):
    whole_stream, part_stream = _stream(table), _stream(damaged)
    _, whole = _take(whole_stream, 20)
    _, part = _take(part_stream, 18)
    plan = build_plan(CONFIG, table)
    broken = {3, 11}
    rows = np.concatenate(
        [plan.videos(plan.stream_indices(b))["path"].to_numpy() for b in range(5)]
    )
    paths = table["path"].to_pylist()
    kept = [i for i in range(20) if paths.index(rows[i]) not in broken]
    assert part.stream_indices.tolist() == kept
    assert np.array_equal(part.frames, whole.frames[kept])
    whole_stream.close()
    part_stream.close()


def test_broken_videos_are_listed_once_with_their_reason(damaged):
    quarantine = Quarantine()
    stream = _stream(damaged, quarantine=quarantine)
    _take(stream, 60)  # more than three epochs
    stream.close()
    assert sorted(path.rsplit("/", 1)[1] for path in quarantine.known()) == [
        "broken11.mp4", "broken3.mp4",
    ]  # fmt: skip
    assert all(reason for reason in quarantine.known().values())


def test_a_known_broken_video_is_not_tried_again(damaged):
    """It may be one that hangs: then every epoch would cost its time limit again."""
    stream = _stream(damaged, quarantine=Quarantine())
    _take(stream, 20)
    asked = []
    original = stream._decoder.decode
    stream._decoder.decode = lambda request, seconds: (
        asked.append(request.path), original(request, seconds),
    )[1]  # fmt: skip
    _take(stream, 40, first=20)
    stream.close()
    assert not [path for path in asked if "broken" in path]


def test_a_resumed_stream_goes_on_where_it_stopped(damaged):
    stream = _stream(damaged)
    batch, _ = _take(stream, 7)
    _, wanted = _take(stream, 9, first=7)
    stream.close()
    resumed = _stream(damaged, batch.after)
    _, got = _take(resumed, 9, first=7)
    resumed.close()
    assert np.array_equal(got.frames, wanted.frames)
    assert np.array_equal(got.stream_indices, wanted.stream_indices)


def test_too_many_broken_videos_stop_the_run():
    reasons = {"a.mp4": "empty", "b.mp4": "truncated"}
    check_share(reasons, videos=40, limit=0.05)
    with pytest.raises(TooManyBrokenVideosError, match=r"2 of 39 .*b.mp4 \(truncated\)"):
        check_share(reasons, videos=39, limit=0.05)


def test_crops_of_a_window_share_its_frames(table):
    """They cost no decoding; the windows are those of a plan without."""
    plain = build_plan(tiny_config("data.repeats=4"), table)
    shared = build_plan(tiny_config("data.repeats=4", "data.crops=2"), table)
    decoder = DecoderProcess()
    asked = []
    decode = decoder.decode
    decoder.decode = lambda request, seconds: (
        asked.append(request.starts) or decode(request, seconds)
    )
    windows, crops = (decode_block(plan, 3, decoder, Quarantine()) for plan in (plain, shared))
    decoder.close()
    assert [len(starts) for starts in asked] == [4, 2]
    assert np.array_equal(crops.frames, windows.frames[[0, 0, 2, 2]])
    assert crops.stream_indices.tolist() == windows.stream_indices.tolist() == [12, 13, 14, 15]
    with pytest.raises(ConfigError, match=r"data\.crops 3 does not divide data\.repeats 4"):
        tiny_config("data.repeats=4", "data.crops=3")
