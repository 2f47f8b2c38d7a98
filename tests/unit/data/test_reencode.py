"""Re-encoded videos carry vectors of one frame each, upright, and none is left out in silence."""

from __future__ import annotations

import os
from fractions import Fraction

import av
import decord
import numpy as np
import pytest

from tats_ray.cli.prepare import prepare_data_main
from tats_ray.data.container import probe_video
from tats_ray.data.datasets.annotation import Entry
from tats_ray.data.datasets.lists import folder_entries
from tats_ray.data.isolated import IsolatedProcess
from tats_ray.data.manifest import read_manifest
from tats_ray.data.motion.vectors import vector_fields
from tats_ray.data.reencode import Conversion, reencode, reencode_entries
from tats_ray.errors import ManifestError, VideoDecodeError
from tests.moving_clips import (
    FRAMES,
    HEIGHT,
    STEP,
    WIDTH,
    encode,
    panning_clip,
    square_clip,
    turn_display,
)


@pytest.fixture(scope="module")
def process():
    process = IsolatedProcess("re-encoding", "--video-seconds")
    yield process
    process.close()


@pytest.fixture
def vp9(tmp_path):
    return encode(tmp_path / "clip.webm", panning_clip(), "libvpx-vp9")


def _kinds(path):
    with av.open(str(path)) as container:
        return "".join("?IPB"[int(frame.pict_type)] for frame in container.decode(video=0))


@pytest.mark.parametrize("short_side", [HEIGHT, 64])
def test_vp9_gives_vectors_afterwards(vp9, tmp_path, process, short_side):
    target = tmp_path / "out" / "clip.mp4"
    reencode(process, Conversion(vp9, target, short_side), 60)
    motion = vector_fields(str(target), 16)
    info = probe_video(target)
    assert (info.height, info.width) == (short_side, short_side * WIDTH // HEIGHT)
    assert len(motion) == FRAMES
    inner = motion[:, 2:-2, 2:-2] * [WIDTH, HEIGHT]
    assert np.abs(np.median(inner, axis=(1, 2)) - STEP).max() < 0.3
    assert _kinds(target) == "I" + "P" * 11 + "IP"
    assert [path.name for path in target.parent.iterdir()] == ["clip.mp4"]


def test_a_turned_video_is_written_upright(tmp_path, process):
    """decord turns pictures as players do; the copy shows the same without being turned."""
    source, target = encode(tmp_path / "turned.mp4", square_clip(6)), tmp_path / "upright.mp4"
    turn_display(source)
    reencode(process, Conversion(source, target, HEIGHT), 60)
    shown = decord.VideoReader(str(source))[0].asnumpy().astype(float)
    written = decord.VideoReader(str(target))[0].asnumpy().astype(float)
    assert written.shape == shown.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(written - shown).mean() < 6
    assert np.abs(written[::-1, ::-1] - shown).mean() > 12
    assert vector_fields(str(target), 16).any()


def test_odd_sizes_and_rates_are_taken(tmp_path, process):
    source = tmp_path / "odd.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(30000, 1001))
        stream.height, stream.width, stream.pix_fmt = 45, 61, "bgr0"
        for image in panning_clip(4)[:, :45, :61]:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    reencode(process, Conversion(source, tmp_path / "even.mp4", 90), 60)
    with av.open(str(tmp_path / "even.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (90, 122)
        assert (stream.frames, stream.average_rate) == (4, Fraction(30000, 1001))


def test_a_cut_video_is_refused_and_leaves_nothing(tmp_path, process):
    source = encode(tmp_path / "cut.avi", panning_clip(), "mpeg4")
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(VideoDecodeError, match=r"ends after \d+ of 14 frames|Invalid data"):
        reencode(process, Conversion(source, tmp_path / "out" / "cut.mp4", 64), 60)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def videos(tmp_path):
    """Two classes, a file that is none, and one of the same name in both classes."""
    folder = tmp_path / "videos"
    for name, codec in (("run/a.webm", "libvpx-vp9"), ("jump/a.avi", "mpeg4")):
        (folder / name).parent.mkdir(parents=True)
        encode(folder / name, panning_clip(4), codec)
    (folder / "run" / "bad.mp4").write_bytes(b"no")
    return folder


def test_a_set_keeps_its_paths_and_labels_and_names_what_is_broken(videos, tmp_path):
    out = tmp_path / "out"
    made = reencode_entries(folder_entries(videos), videos, out, 64)
    assert [(entry.path, entry.label) for entry in made.entries] == [
        (out / "jump" / "a.mp4", "jump"),
        (out / "run" / "a.mp4", "run"),
    ]
    assert [failure.path for failure in made.failures] == [str(videos / "run" / "bad.mp4")]


def test_only_current_copies_are_kept(videos, tmp_path):
    out = tmp_path / "out"

    def times(short_side=64):
        made = reencode_entries(folder_entries(videos), videos, out, short_side)
        return [entry.path.stat().st_mtime_ns for entry in made.entries]

    first = times()
    assert times() == first
    later = max(first) + 1_000_000
    os.utime(videos / "run" / "a.webm", ns=(later, later))
    jump, run = times()
    assert (jump == first[0], run == first[1]) == (True, False)
    assert jump not in times(short_side=32)


def test_no_source_is_overwritten_and_no_two_become_one(videos, tmp_path):
    entries = folder_entries(videos)
    for folder in (videos, videos / "new"):
        with pytest.raises(ManifestError, match="lies within"):
            reencode_entries(entries, videos, folder, 64)
    (videos / "jump" / "a.mp4").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"would both become .*a\.mp4"):
        reencode_entries(folder_entries(videos), videos, tmp_path / "out", 64)
    listed = [Entry(videos / "jump" / "a.mp4", None, "list.txt:1")]
    with pytest.raises(ManifestError, match="would be overwritten"):
        reencode_entries(listed, videos / "list.txt", videos, 64)


def test_a_listed_video_from_elsewhere_keeps_its_whole_path(videos, tmp_path):
    source = videos / "jump" / "a.avi"
    lists = tmp_path / "lists"
    lists.mkdir()
    listed = [Entry(lists / ".." / "videos" / "jump" / "a.avi", "x", "list.txt:1")]
    made = reencode_entries(listed, lists / "list.txt", tmp_path / "out", 64)
    expected = tmp_path / "out" / source.relative_to("/").with_suffix(".mp4")
    assert [entry.path for entry in made.entries] == [expected]
    gone = [Entry(lists / "gone.mp4", None, "list.txt:1")]
    made = reencode_entries(gone, lists / "list.txt", tmp_path / "out", 64)
    assert "no such file" in made.failures[0].reason


def test_the_command_re_encodes_and_caches(videos, tmp_path, capsys):
    manifest, out, motion = tmp_path / "m.parquet", tmp_path / "out", tmp_path / "motion"
    code = prepare_data_main(
        [
            *(str(videos), str(manifest)),
            *("--reencode", str(out), "--short-side", "64"),
            *("--motion", "vectors", "--motion-folder", str(motion), "--motion-grid", "8"),
        ]
    )
    assert code == 0
    rows = read_manifest(manifest).to_pylist()
    assert [row["path"] for row in rows] == [str(out / "jump/a.mp4"), str(out / "run/a.mp4")]
    assert [(row["label"], row["height"]) for row in rows] == [("jump", 64), ("run", 64)]
    assert len(list(motion.iterdir())) == 2
    printed = capsys.readouterr()
    assert "2 of 3 videos re-encoded" in printed.out
    assert "2 videos, 2 labels, 1 broken" in printed.out
    assert "vectors of 2 videos, 0 have none" in printed.out
    assert printed.err.startswith(f"broken: {videos / 'run' / 'bad.mp4'}: ")


def test_the_command_names_videos_without_motion(videos, tmp_path, capsys):
    arguments = [str(videos), str(tmp_path / "m.parquet"), "--motion", "vectors"]
    with pytest.raises(SystemExit):
        prepare_data_main(arguments)
    assert "go together" in capsys.readouterr().err
    arguments += ["--motion-folder", str(tmp_path / "motion")]
    assert prepare_data_main(arguments) == 0
    printed = capsys.readouterr()
    assert "vectors of 1 videos, 1 have none" in printed.out
    assert f"no motion: {videos / 'run' / 'a.webm'}: codec vp9" in printed.err
    (videos / "jump" / "a.avi").unlink()
    assert prepare_data_main(arguments) == 2
    assert "no video has vectors; the first: " in capsys.readouterr().err


def test_short_sides_that_no_encoder_takes_are_refused(tmp_path, capsys):
    for value in ("63", "2"):
        with pytest.raises(SystemExit):
            prepare_data_main([str(tmp_path), "m.parquet", "--short-side", value])
        assert "is not an even number" in capsys.readouterr().err
