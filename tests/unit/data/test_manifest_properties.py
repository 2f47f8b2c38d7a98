"""Manifests and lists, whatever is in them: rows come back, or one line names file and place."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tats_ray.data.datasets.annotation import Entry
from tats_ray.data.datasets.kinetics import kinetics_entries
from tats_ray.data.datasets.lists import folder_entries, list_entries, videomae_entries
from tats_ray.data.datasets.ssv2 import ssv2_entries
from tats_ray.data.datasets.ucf101_hmdb51 import hmdb51_entries, ucf101_entries
from tats_ray.data.manifest import SCHEMA, ManifestRow, read_manifest, write_manifest
from tats_ray.data.prepare import prepare
from tats_ray.data.reencode import reencode_entries
from tats_ray.data.video_writer import write_h264
from tats_ray.errors import ManifestError
from tats_ray.evaluation.splits import read_folds

# Every sign that a file name may have on Linux.
NAME = st.text(
    st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=12
)
COUNT = st.integers(1, 2**40)
ROW = st.builds(
    ManifestRow, path=NAME.map("/v/{}".format), label=st.none() | NAME, frames=COUNT,
    fps=st.floats(1e-3, 1e3), width=COUNT, height=COUNT, ground_truth=st.none() | NAME,
    mask=st.none() | NAME, fold=st.none() | NAME, group=st.none() | NAME,
)  # fmt: skip


@settings(max_examples=60)
@given(rows=st.lists(ROW, min_size=1, max_size=8, unique_by=lambda row: row.path))
def test_rows_come_back_whatever_they_hold(tmp_path_factory, rows):
    file = tmp_path_factory.getbasetemp() / "m.parquet"
    write_manifest(file, rows)
    assert [ManifestRow(**row) for row in read_manifest(file).to_pylist()] == rows


PLAIN = {"path": ["/a.mp4", "/b.mp4", "/c.mp4"], "frames": [9, 9, 9], "fps": [25.0] * 3,
         "width": [8, 8, 8], "height": [8, 8, 8], "label": ["x", None, "y"]}  # fmt: skip
ODD = st.sampled_from([0, -1, 2**63 - 1, 1.5, float("nan"), float("inf"), None, "", "7", b"\xff",
                       True, [1], {"a": 1}])  # fmt: skip


@settings(max_examples=120)
@given(column=st.sampled_from(sorted(PLAIN)), row=st.integers(0, 2), value=ODD)
def test_any_value_anywhere_is_taken_or_one_line(tmp_path_factory, column, row, value):
    file = tmp_path_factory.getbasetemp() / "odd.parquet"
    values = list(PLAIN[column])
    values[row] = value
    try:
        array = pa.array(values)
    except pa.ArrowException:
        array = pa.array([value] * 3)
    pq.write_table(pa.table({**PLAIN, column: array}), file)
    try:
        table = read_manifest(file)
    except ManifestError as error:
        assert str(error).startswith(f"{file}: ")
        assert "\n" not in str(error)
        assert column in str(error) or "is already in" in str(error)
        return
    assert table.schema == SCHEMA
    for name in ("frames", "fps", "width", "height"):
        numbers = table[name].to_numpy()
        assert np.isfinite(numbers).all() and (numbers > 0).all()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("path", ["/a.mp4", "/b.mp4", "/a.mp4"], "row 2: /a.mp4 is already in row 0; keep"),
        ("path", ["/a.mp4", "", "/c.mp4"], "row 1: 'path' is empty"),
        ("path", ["/a.mp4", None, "/c.mp4"], "row 1: 'path' is empty"),
        ("fps", [25.0, 25.0, float("nan")], "row 2: column 'fps' has the value nan"),
        ("fps", [25.0, float("inf"), 1.0], "row 1: column 'fps' has the value inf"),
        ("height", [8, 0, 8], "row 1: column 'height' has the value 0; must be > 0"),
        ("frames", [[1], [2], [3]], "column 'frames' is not int64"),
    ],
)
def test_a_fault_names_its_row(tmp_path, column, values, message):
    file = tmp_path / "m.parquet"
    pq.write_table(pa.table({**PLAIN, column: values}), file)
    with pytest.raises(ManifestError, match=message):
        read_manifest(file)


def test_damaged_and_foreign_files_are_named(tmp_path):
    file = tmp_path / "m ü.parquet"
    write_manifest(file, [ManifestRow("/a.mp4", None, 1, 1.0, 1, 1)])
    whole = file.read_bytes()
    for content in (b"", whole[:-9], whole[: len(whole) // 2], b"\xef\xbb\xbfpath,label\r\n",
                    whole.replace(b"frames", b"frxmes")):  # fmt: skip
        file.write_bytes(content)
        with pytest.raises(ManifestError, match=r"m ü\.parquet: "):
            read_manifest(file)
    columns = [*PLAIN, "path"]
    arrays = [pa.array(PLAIN[name]) for name in columns]
    pq.write_table(pa.Table.from_arrays(arrays, names=columns), file)
    with pytest.raises(ManifestError, match="column 'path' appears twice"):
        read_manifest(file)
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path)


LISTS = {
    "list": list_entries,
    "ucf101": lambda file: ucf101_entries(file, file.parent),
    "kinetics": lambda file: kinetics_entries(file, file.parent),
    "videomae": lambda file: videomae_entries(file, file.parent),
    "ssv2": lambda file: ssv2_entries(file, file.parent),
    "hmdb51": lambda file: hmdb51_entries(file.parent, file.parent, "train"),
    "folds": read_folds,
}
FILE_NAMES = {"hmdb51": "wave_test_split1.txt", "folds": "folds.csv"}
LINE = st.sampled_from(
    ["a.mp4 1", "Class/v_01.avi 3", "Class/v_01.avi", "x,abc,1,9,train", "path,fold,group", "[",
     "label,youtube_id,time_start,time_end,split", "a.mp4,1,g", '"a b.mp4" 3', "v.avi 1", "]", ",",
     '{"id": "7", "template": "x"}', '"', "../../etc/passwd.mp4 1", "\ufeff", "\x00.mp4 1", " ",
     "ü 視頻.mp4 2", "\u2028.mp4 1", "a" * 5000 + ".mp4 1", "\x85", "a\rb.mp4 1"]
)  # fmt: skip
LINES = st.lists(LINE | st.text(max_size=10), max_size=5)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@settings(max_examples=150)
@given(reader=st.sampled_from(sorted(LISTS)), lines=LINES, end=ENDS, mark=st.booleans())
def test_no_list_escapes_as_another_error(tmp_path_factory, reader, lines, end, mark):
    folder = tmp_path_factory.getbasetemp() / "lists"
    folder.mkdir(exist_ok=True)
    file = folder / FILE_NAMES.get(reader, "list.txt")
    text = "\ufeff" * mark + end.join(lines)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        LISTS[reader](file)
    except ManifestError as error:
        assert str(folder) in str(error)
        assert "\n" not in str(error)


OUTSIDE = [
    ("ucf101", "../v_01.avi 3", r"list.txt:1: class '\.\.' points outside the folder"),
    ("kinetics", "label,youtube_id,time_start,time_end,split\nx,../../a,1,9,train",
     r"list.txt:2: youtube_id '\.\./\.\./a' points outside"),
    ("kinetics", "label,youtube_id,time_start,time_end,split\n/etc,a,1,9,train",
     "list.txt:2: label '/etc' points outside"),
    ("ssv2", json.dumps([{"id": "../7", "template": "x"}]), r"entry 1: id '\.\./7' points outside"),
    ("ssv2", json.dumps([{"id": "/etc/passwd", "template": "x"}]), "points outside"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "content", "message"), OUTSIDE)
def test_names_of_official_files_stay_within_the_folder(tmp_path, reader, content, message):
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(ManifestError, match=message):
        LISTS[reader](tmp_path / "list.txt")


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "up" / "a.mp4"
    path.parent.mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    write_h264(path, frames, fps=8)
    return path


def test_lists_of_paths_may_point_anywhere_but_copies_stay_within_their_folder(tmp_path, video):
    """A list of paths is the user's own word on where videos lie; what is written is not."""
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "list.txt").write_text(f"../up/a.mp4 1\n{video} 2\n")
    for entries in (list_entries(lists / "list.txt"), videomae_entries(lists / "list.txt", lists)):
        assert [entry.path.resolve() for entry in entries] == [video, video]
    copies = tmp_path / "copies"
    made, failures = reencode_entries(
        list_entries(lists / "list.txt")[:1], lists / "list.txt", copies, 16
    )
    assert not failures
    assert made[0].path.is_relative_to(copies)
    assert [path for path in tmp_path.rglob("*.mp4") if path != video] == [made[0].path]


def test_a_video_named_twice_is_refused_with_both_places(tmp_path, video):
    (tmp_path / "list.txt").write_text("up/a.mp4 1\n\nup/a.mp4 2\n")
    with pytest.raises(ManifestError, match=r"list\.txt:3: .*a\.mp4 is already in .*txt:1"):
        prepare(list_entries(tmp_path / "list.txt"), tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_a_folder_of_odd_names_and_links_becomes_a_manifest(tmp_path, video):
    odd = tmp_path / "odd" / "class ü"
    odd.mkdir(parents=True)
    names = ["a b.mp4", "视频.MP4", "new\nline.mp4", "-dash.mp4", "%20.mp4", "quote'\".mp4"]
    for name in names:
        os.link(video, odd / name)
    (odd / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (odd / "folder.mp4").mkdir()
    made = prepare(folder_entries(tmp_path / "odd"), tmp_path / "m.parquet")
    rows = read_manifest(tmp_path / "m.parquet").to_pylist()
    assert {row["path"].rsplit("/", 1)[1] for row in rows} == set(names)
    assert {row["label"] for row in rows} == {"class ü"}
    assert {failure.path.rsplit("/", 1)[1] for failure in made.failures} == {
        "dangling.mp4", "folder.mp4",
    }  # fmt: skip


def test_a_name_that_is_no_text_is_named(tmp_path, video):
    """Bytes that are not UTF-8 cannot stand in Parquet."""
    folder = tmp_path / "bytes"
    folder.mkdir()
    os.link(video, os.fsencode(folder) + b"/caf\xe9.mp4")
    made = prepare([*folder_entries(folder), Entry(video, None, "x")], tmp_path / "m.parquet")
    assert [failure.reason for failure in made.failures] == [
        "its name is not UTF-8 text; rename it"
    ]
