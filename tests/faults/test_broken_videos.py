"""Broken and hanging videos in a run: all are named, each costs what it must, the others train as
if the broken ones had been known from the start."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tats_ray.cli.prepare import prepare_data_main
from tats_ray.data.clips import Cursor
from tats_ray.data.datasets.annotation import Entry
from tats_ray.data.decode import DecodeRequest
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.manifest import ManifestRow, read_manifest, write_manifest
from tats_ray.data.motion.cache import cache_motion
from tats_ray.data.prepare import prepare
from tats_ray.data.reencode import reencode_entries
from tats_ray.data.serial_stream import SerialClipStream
from tats_ray.data.stage import Quarantine, build_plan
from tats_ray.data.synthetic.generate import SyntheticSet
from tats_ray.errors import TooManyBrokenVideosError, VideoDecodeError
from tests.conftest import tiny_config
from tests.runs.command import STEPS, Run

BROKEN = (5, 21)  # of 66 videos: 3 %


def _copies(synthetic, folder, count):
    """Rows of `count` videos out of the tiny set, under names of their own."""
    folder.mkdir()
    rows = [ManifestRow(**row) for row in read_manifest(synthetic.train).to_pylist()]
    made = []
    for number in range(count):
        row = rows[number % len(rows)]
        path = folder / f"{number:03d}.mp4"
        os.link(row.path, path)
        made.append(replace(row, path=str(path), ground_truth=None))
    return made


def _spoil(rows, numbers):
    for number in numbers:
        rows[number] = replace(rows[number], path=rows[number].path.replace(".mp4", "-bad.mp4"))
        Path(rows[number].path).write_bytes(b"rubbish" * 100)
    return [rows[number].path for number in numbers]


def _hanging(path):
    """A MPEG program stream with a hole of zeros that no decoder comes to the end of."""
    with av.open(str(path), "w", format="mpeg") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for grey in range(24):
            frame = np.full((32, 32, 3), 8 * grey, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    os.truncate(path, 2**40)
    return str(path)


@pytest.mark.faults
def test_three_percent_broken_train_as_if_they_had_been_known(synthetic, tmp_path):
    """Weights are equal bit for bit, so the good clips came in the same order with the same
    frames, and every figure that hangs on their number is the same."""
    rows = _copies(synthetic, tmp_path / "videos", 66)
    broken = _spoil(rows, BROKEN)
    write_manifest(tmp_path / "set.parquet", rows)
    videos = SyntheticSet(tmp_path / "set.parquet", synthetic.held_out)
    runs = [Run(videos, tmp_path, name, "tracking.mlflow=false") for name in ("met", "known")]
    known = dict.fromkeys(broken, "known from the start")
    runs[1].path.mkdir(parents=True)
    (runs[1].path / "quarantine.json").write_text(json.dumps(known))
    for run in runs:
        run.finish()
        assert run.summary()["videos_quarantined"] == 2
    listed = json.loads((runs[0].path / "quarantine.json").read_text())
    assert sorted(listed) == sorted(broken)
    assert all("pyav: " in reason for reason in listed.values())
    one, other = (run.weights() for run in runs)
    assert all(np.array_equal(one[key], other[key]) for key in one)
    cursors = [
        json.loads((run.path / "checkpoints" / f"step_{STEPS:08d}" / "progress.json").read_text())
        for run in runs
    ]
    assert cursors[0]["cursor"] == cursors[1]["cursor"]


def _stopped(run: Run) -> str:
    process = run.start()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    return output.splitlines()[-1]


@pytest.mark.faults
@pytest.mark.parametrize("share", ["0.05", "1.0"])
def test_a_set_that_is_all_broken_stops_with_counts_and_list(synthetic, tmp_path, share):
    rows = _copies(synthetic, tmp_path / "videos", 30)
    broken = _spoil(rows, range(30))
    write_manifest(tmp_path / "set.parquet", rows)
    videos = SyntheticSet(tmp_path / "set.parquet", synthetic.held_out)
    run = Run(videos, tmp_path, "rubbish", "tracking.mlflow=false", f"data.broken_share={share}")
    message = _stopped(run)
    found = re.match(r"error: (\d+) of 30 videos cannot be decoded, more than data.broken_share=",
                     message)  # fmt: skip
    assert found, message
    assert "repair the manifest or raise the limit" in message
    listed = json.loads((run.path / "quarantine.json").read_text())
    assert len(listed) == int(found[1]) == (4 if share == "0.05" else 30)
    assert set(listed) <= set(broken)


@pytest.mark.faults
def test_nothing_to_look_at_is_named(synthetic, tmp_path):
    rows = _copies(synthetic, tmp_path / "videos", 4)
    _spoil(rows, range(4))
    write_manifest(tmp_path / "held_out.parquet", rows)
    videos = SyntheticSet(synthetic.train, tmp_path / "held_out.parquet")
    message = _stopped(Run(videos, tmp_path, "blind", "tracking.mlflow=false"))
    assert message.startswith(f"error: {tmp_path / 'held_out.parquet'}: none of the first 64")
    assert "data.held_out_manifest" in message


def test_the_search_for_a_good_clip_ends(synthetic, tmp_path):
    """Also where any share may be broken; and a single good video is enough to go on."""
    config = tiny_config("data.broken_share=1.0")
    rows = _copies(synthetic, tmp_path / "videos", 9)
    _spoil(rows, range(8))
    write_manifest(tmp_path / "one.parquet", rows)
    stream = _stream(config, tmp_path / "one.parquet")
    assert len(stream.next_batch(0, 3)) == 3
    stream.close()
    _spoil(rows, [8])
    write_manifest(tmp_path / "none.parquet", rows)
    stream = _stream(config, tmp_path / "none.parquet")
    with pytest.raises(TooManyBrokenVideosError, match="9 of 9 videos") as caught:
        stream.next_batch(0, 3)
    assert set(caught.value.reasons) == {row.path for row in rows}
    stream.close()


def _stream(config, manifest):
    return SerialClipStream(build_plan(config, read_manifest(manifest)), Cursor(), Quarantine())


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_a_file_that_hangs_both_decoders_costs_its_limit(tmp_path, decoder):
    path = _hanging(tmp_path / "hanging.mpg")
    process = DecoderProcess()
    request = DecodeRequest(path, 4, 2, [0.0], 32, 32, decoder)
    with pytest.raises(VideoDecodeError, match=r"hanging.mpg: decoding took more than 1 s"):
        process.decode(request, 1.0)
    process.close()


def _with_a_hanging_one(synthetic, tmp_path):
    rows = _copies(synthetic, tmp_path / "videos", 12)
    rows[3] = replace(rows[3], path=_hanging(tmp_path / "hanging.mpg"))
    write_manifest(tmp_path / "set.parquet", rows)
    return SyntheticSet(tmp_path / "set.parquet", synthetic.held_out), rows[3].path


def test_a_hanging_file_costs_one_decoder_in_three_epochs(synthetic, tmp_path):
    """Every limit that is passed costs a child process; no other video pays for the new one."""
    videos, hanging = _with_a_hanging_one(synthetic, tmp_path)
    config = tiny_config("data.decode_seconds=2.0")
    quarantine = Quarantine()
    plan = build_plan(config, read_manifest(videos.train))
    stream = SerialClipStream(plan, Cursor(), quarantine)
    children = []
    for place in range(33):
        stream.next_batch(place, 1)
        if stream._decoder._process._child is not None:
            children.append(stream._decoder._process._child.pid)
    stream.close()
    assert dict(quarantine.known()) == {
        hanging: "decoding took more than 2 s; leave the file out, or raise data.decode_seconds"
    }
    assert len(set(children)) <= 2


def test_preparing_data_names_a_file_that_hangs(synthetic, tmp_path):
    videos, hanging = _with_a_hanging_one(synthetic, tmp_path)
    entries = [Entry(Path(row["path"]), None, "here") for row in
               read_manifest(videos.train).to_pylist()]  # fmt: skip
    made = prepare(entries, tmp_path / "prepared.parquet", seconds=2.0)
    assert [str(failure) for failure in made.failures] == [
        f"{hanging}: probing took more than 2 s; leave the file out, or raise --video-seconds"
    ]
    assert len(made.rows) == 11


@pytest.mark.parametrize("work", ["re-encoding", "motion (lucas_kanade)"])
def test_re_encoding_and_motion_name_a_file_that_hangs(synthetic, tmp_path, work):
    """It costs its limit once, leaves no half-made copy, and all others are done."""
    videos, hanging = _with_a_hanging_one(synthetic, tmp_path)
    paths = [row["path"] for row in read_manifest(videos.train).to_pylist()]
    out = tmp_path / "out"
    if work == "re-encoding":
        entries = [Entry(Path(path), None, "here") for path in paths]
        failures = reencode_entries(entries, videos.train, out, 32, seconds=3.0).failures
    else:
        failures = cache_motion(paths, "lucas_kanade", 4, str(out), seconds=3.0)
    assert [str(failure) for failure in failures] == [
        f"{hanging}: {work} took more than 3 s; leave the file out, or raise --video-seconds"
    ]
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 11
    assert not any(path.name.startswith(".") for path in files)


def test_the_command_ends_over_a_file_that_hangs(synthetic, tmp_path, capsys):
    rows = _copies(synthetic, tmp_path / "videos", 3)
    hanging = _hanging(tmp_path / "videos" / "hanging.mpg")
    code = prepare_data_main(
        [
            *(str(tmp_path / "videos"), str(tmp_path / "m.parquet"), "--video-seconds", "3"),
            *("--reencode", str(tmp_path / "out"), "--short-side", "32"),
        ]
    )
    assert code == 0
    assert capsys.readouterr().err.startswith(f"broken: {hanging}: re-encoding took more than 3 s")
    assert read_manifest(tmp_path / "m.parquet").num_rows == len(rows)


@pytest.mark.faults
def test_a_run_over_a_hanging_file_ends_and_names_it(synthetic, tmp_path):
    videos, hanging = _with_a_hanging_one(synthetic, tmp_path)
    settings = ["tracking.mlflow=false", "data.decode_seconds=3.0", "data.broken_share=0.1"]
    run = Run(videos, tmp_path, "hung", *settings)
    run.finish()
    listed = json.loads((run.path / "quarantine.json").read_text())
    assert listed == {
        hanging: "decoding took more than 3 s; leave the file out, or raise data.decode_seconds"
    }
    assert run.summary()["steps"] == STEPS
