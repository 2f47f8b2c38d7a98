"""Manifests say what is wrong with them."""

from __future__ import annotations

import os
import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tats_ray.data.datasets.lists import folder_entries, list_entries, other_files
from tats_ray.data.manifest import SCHEMA, ManifestRow, read_manifest, write_manifest
from tats_ray.data.prepare import prepare
from tats_ray.errors import ManifestError

ROWS = [
    ManifestRow("/v/a b.mp4", "läuft", 100, 25.0, 320, 240),
    ManifestRow("/v/b.mp4", None, 7, 29.97, 240, 320, "/v/b.npz"),
    ManifestRow("/v/c.mp4", None, 7, 29.97, 240, 320, None, "seek", 1234, 10**18),
]


def test_rows_come_back(tmp_path):
    write_manifest(tmp_path / "m.parquet", ROWS)
    table = read_manifest(tmp_path / "m.parquet")
    assert [ManifestRow(**row) for row in table.to_pylist()] == ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["m.parquet"]


def test_optional_columns_may_lack_and_types_are_cast(tmp_path):
    path = tmp_path / "m.parquet"
    plain = {"path": ["a.mp4"], "frames": pa.array([3], pa.int32()), "fps": [25], "width": [4],
             "height": [4], "mine": [1]}  # fmt: skip
    pq.write_table(pa.table(plain), path)
    table = read_manifest(path)
    assert table.schema == SCHEMA
    assert table["label"].null_count == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"frames": None}, "column 'frames' is missing"),
        ({"frames": ["x"]}, "column 'frames' is not int64"),
        ({"path": pa.array([None], pa.string())}, "row 0: 'path' is empty"),
        ({"width": [0]}, "column 'width' has the value 0"),
        ({"reading": ["guess"]}, "column 'reading' has the value 'guess', not one of decord, seek"),
        ({"reading": ["seek"], "bytes": [3]}, "'mtime_ns' and 'reading' must both be there"),
    ],
)
def test_faults_name_column_or_row(tmp_path, columns, message):
    path = tmp_path / "m.parquet"
    table = {
        "path": ["a.mp4"],
        "frames": [3],
        "fps": [25.0],
        "width": [4],
        "height": [4],
        **columns,
    }
    pq.write_table(pa.table({k: v for k, v in table.items() if v is not None}), path)
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


def test_no_rows_no_file_no_parquet(tmp_path):
    path = tmp_path / "m.parquet"
    with pytest.raises(ManifestError, match="make one with"):
        read_manifest(path)
    path.write_text("path,label\n")
    with pytest.raises(ManifestError, match="not a Parquet file"):
        read_manifest(path)
    pq.write_table(SCHEMA.empty_table(), path)
    with pytest.raises(ManifestError, match="has no rows"):
        read_manifest(path)


def test_a_folder_becomes_a_manifest(synthetic, tmp_path):
    source = sorted((synthetic.train.parent / "train").glob("*.mp4"))
    for name, video in zip(
        ["run/a.mp4", "run/b c.mp4", "jump/ü.mp4", "top.mp4"], source, strict=False
    ):
        target = tmp_path / "videos" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(video.read_bytes())
    (tmp_path / "videos" / "jump" / "bad.mp4").write_bytes(b"no")
    (tmp_path / "videos" / "notes.txt").write_text("not a video")
    made = prepare(folder_entries(tmp_path / "videos"), tmp_path / "out" / "m.parquet")
    rows = read_manifest(tmp_path / "out" / "m.parquet").to_pylist()
    found = {row["path"].rsplit("/", 1)[1]: row["label"] for row in rows}
    assert found == {"ü.mp4": "jump", "a.mp4": "run", "b c.mp4": "run", "top.mp4": None}
    assert {(row["frames"], row["fps"], row["width"], row["height"]) for row in rows} == {
        (12, 16.0, 32, 32)
    }
    assert [failure.path.rsplit("/", 1)[1] for failure in made.failures] == ["bad.mp4"]


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("a.mp4", "a.mp4", None),
        ("a.mp4 7", "a.mp4", "7"),
        ("my clip.mp4 jump", "my clip.mp4", "jump"),
        ("my clip.mp4\tlong jump", "my clip.mp4", "long jump"),
        ("my clip.mp4,long jump,extra", "my clip.mp4", "long jump"),
    ],
)
def test_list_lines(tmp_path, line, path, label):
    file = tmp_path / "list.txt"
    file.write_text(f"\ufeff{line}\r\n\r\n", encoding="utf-8")
    (entry,) = list_entries(file)
    assert (entry.path, entry.label) == (tmp_path / path, label)


def test_list_faults_name_file_and_line(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("a.mp4 1\nwhatever\n")
    with pytest.raises(ManifestError, match=r"list.txt:2: 'whatever' does not look like a video"):
        list_entries(file)
    file.write_text("\n")
    with pytest.raises(ManifestError, match="is empty"):
        list_entries(file)
    with pytest.raises(ManifestError, match="holds no videos"):
        folder_entries(tmp_path)
    file.write_text("missing.mp4 1\n")
    with pytest.raises(ManifestError, match=r"none of 1 videos .*no such file.*list.txt:1"):
        prepare(list_entries(file), tmp_path / "m.parquet")


def test_what_is_no_file_is_named_for_what_it_is(tmp_path, monkeypatch):
    """Each has the suffix of a video; none is opened, so none can hang."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.mp4")
        with pytest.raises(ManifestError, match="none of 5 videos"):
            prepare(folder_entries(tmp_path), tmp_path / "m.parquet")
        for kind, found in [("pipe", r"is a pipe \(FIFO\)"), ("folder", "is a folder"),
                            ("device", "is a device"), ("socket", "is a socket"),
                            ("loop", "is a loop of symbolic links")]:  # fmt: skip
            entry = next(e for e in folder_entries(tmp_path) if e.path.stem == kind)
            with pytest.raises(ManifestError, match=found):
                prepare([entry], tmp_path / "m.parquet")


def test_files_of_other_suffixes_are_counted(tmp_path):
    for name in ("a.mp4", "b.txt", "c/d.txt", "c/e.MP4", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert other_files(tmp_path) == {".txt": 2, "without suffix": 1}
