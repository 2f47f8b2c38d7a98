"""Published annotation files are read as they are, and what is wrong in them is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tats_ray.data.datasets.hmdb51 import hmdb51_entries
from tats_ray.data.datasets.kinetics import kinetics_entries
from tats_ray.data.datasets.ssv2 import ssv2_entries
from tats_ray.data.datasets.ucf101 import ucf101_entries
from tats_ray.data.datasets.videomae import videomae_entries
from tats_ray.data.manifest import read_manifest
from tats_ray.data.prepare import Entry, prepare
from tats_ray.data.video_writer import write_h264
from tats_ray.errors import ManifestError
from tats_ray.runtime.prepare_cli import prepare_data_main

VIDEOS = Path("/videos")
KINETICS = "\r\n".join(
    [
        "\ufefflabel,youtube_id,time_start,time_end,split,is_cc",
        '"petting animal (not cat)",--3ouPhoy2A,20,30,train,0',
        '"counting, aloud",_dbcJuKJQNs,0,10,val,0',
        "massaging person's head,0-I2mCJCs6A,1234,1244,validate,1",
        "",
        '"saying ""olé""",zzzzzzzzzzz,5,15,test,0\r\n',
    ]
)
SSV2 = [
    {
        "id": "78687",
        "label": "holding potato next to vicks vaporub bottle",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato", "vicks vaporub bottle"],
    },
    {
        "id": "42326",
        "label": "putting a café cup, a pen and a key on the table",
        "template": "Putting [something], [something] and [something] on the table",
        "placeholders": ["a café cup", "a pen", "a key"],
    },
]
LABELS = {
    "Holding something next to something": "0",
    "Putting something, something and something on the table": "1",
}


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def _pairs(entries: list[Entry], folder: Path = VIDEOS) -> list[tuple[str, str | None]]:
    return [(str(entry.path.relative_to(folder)), entry.label) for entry in entries]


# Something-Something V2


def test_ssv2_classes_are_templates_without_brackets(tmp_path):
    file = _write(tmp_path / "train.json", "\ufeff" + json.dumps(SSV2, ensure_ascii=False))
    labels = _write(tmp_path / "labels.json", json.dumps(LABELS))
    entries = ssv2_entries(file, VIDEOS, labels)
    assert _pairs(entries) == list(zip(["78687.webm", "42326.webm"], LABELS, strict=True))
    assert [entry.origin for entry in entries] == [f"{file}: entry 1", f"{file}: entry 2"]


def test_ssv2_takes_the_file_that_is_there(tmp_path):
    file = _write(tmp_path / "train.json", json.dumps(SSV2))
    _write(tmp_path / "42326.mp4", "")
    paths = [path for path, _ in _pairs(ssv2_entries(file, tmp_path), tmp_path)]
    assert paths == ["78687.webm", "42326.mp4"]


def test_ssv2_test_files_have_no_classes(tmp_path):
    file = _write(tmp_path / "test.json", '[{"id": "1420"}, {"id": "3"}]')
    assert _pairs(ssv2_entries(file, VIDEOS)) == [("1420.webm", None), ("3.webm", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\r\n{"id": "1"},\r\n{"id": }]', r"a\.json:3: is not JSON"),
        ('{"id": "1"}', r"a\.json: must hold \["),
        ("[]", r"a\.json: must hold \["),
        (" \n", r"a\.json: is empty"),
        ('["1"]', r"a\.json: entry 1: 'id' must be"),
        ('[{"id": 1}]', r"a\.json: entry 1: 'id' must be"),
        (json.dumps([*SSV2, {"id": "3"}]), r"a\.json: entry 3: 'template' must be"),
        ('[{"id": "1", "template": "X [y]"}]', r"entry 1: class 'X y' is not in .*labels\.json"),
    ],
)
def test_ssv2_faults(tmp_path, text, message):
    labels = _write(tmp_path / "labels.json", json.dumps(LABELS))
    with pytest.raises(ManifestError, match=message):
        ssv2_entries(_write(tmp_path / "a.json", text), VIDEOS, labels)


# Kinetics


def test_kinetics_names_and_quoted_labels(tmp_path):
    file = _write(tmp_path / "train.csv", KINETICS)
    entries = kinetics_entries(file, VIDEOS)
    assert _pairs(entries) == [
        ("--3ouPhoy2A_000020_000030.mp4", "petting animal (not cat)"),
        ("_dbcJuKJQNs_000000_000010.mp4", "counting, aloud"),
        ("0-I2mCJCs6A_001234_001244.mp4", "massaging person's head"),
        ("zzzzzzzzzzz_000005_000015.mp4", 'saying "olé"'),
    ]
    assert [entry.origin[len(str(file)) :] for entry in entries] == [":2", ":3", ":4", ":6"]


def test_kinetics_videos_lie_flat_or_in_their_class(tmp_path):
    file = _write(tmp_path / "train.csv", KINETICS)
    there = [
        "_dbcJuKJQNs_000000_000010.mp4",
        "massaging_person's_head/0-I2mCJCs6A_001234_001244.mp4",
        'saying "olé"/zzzzzzzzzzz_000005_000015.mp4',
    ]
    for name in there:
        _write(tmp_path / name, "")
    found = [path for path, _ in _pairs(kinetics_entries(file, tmp_path), tmp_path)]
    assert found == ["--3ouPhoy2A_000020_000030.mp4", *there]


@pytest.mark.parametrize(
    ("split", "lines"),
    [("train", [2]), ("validation", [3, 4]), ("test", [6]), (None, [2, 3, 4, 6])],
)
def test_kinetics_splits(tmp_path, split, lines):
    file = _write(tmp_path / "all.csv", KINETICS)
    origins = [entry.origin for entry in kinetics_entries(file, VIDEOS, split)]
    assert origins == [f"{file}:{line}" for line in lines]


def test_kinetics_columns_go_by_name_and_the_label_may_be_held_out(tmp_path):
    text = "youtube_id,time_start,time_end,split\n-1IwGSjbb0A,7,17,test\n"
    file = _write(tmp_path / "test.csv", text)
    assert _pairs(kinetics_entries(file, VIDEOS)) == [("-1IwGSjbb0A_000007_000017.mp4", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abseiling,a,0,10,train\n", r":1: column 'youtube_id' is missing"),
        ("label,youtube_id,time_start,time_end\na,b,1,2\n", r":1: column 'split' is missing"),
        (KINETICS + "counting, aloud,a,0,10,train,0\n", r":7: 7 fields .* names 6"),
        (
            KINETICS + 'x,a,0,10,train,0\n"x,b,0,10,train,0\ny,c,0,10,train,0\n',
            r":8: .*; mend the double quotes",
        ),
        (KINETICS + "x,a,0.5,10,train,0\n", r":7: time_start '0.5' must be whole seconds"),
        (KINETICS + ",a,0,10,train,0\n", r":7: label is empty"),
        ("label,youtube_id,time_start,time_end,split\na,b,1,2,val\n", r"no rows of the split"),
        ("label,youtube_id,time_start,time_end,split\n", r"no rows of the split"),
    ],
)
def test_kinetics_faults(tmp_path, text, message):
    with pytest.raises(ManifestError, match=r"a\.csv.*" + message):
        kinetics_entries(_write(tmp_path / "a.csv", text), VIDEOS, "train")


# UCF101


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", "v_ApplyEyeMakeup_g08_c01.avi"),
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "v_ApplyEyeMakeup_g01_c01.avi"),
        ("ApplyEyeMakeup/mein Büro 3.avi\t1", "mein Büro 3.avi"),
    ],
)
def test_ucf101_lines(tmp_path, line, path):
    file = _write(tmp_path / "trainlist01.txt", f"\ufeff{line}\r\n\r\n")
    labels = _write(tmp_path / "classInd.txt", "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n")
    entries = ucf101_entries(file, VIDEOS, labels)
    assert _pairs(entries) == [(f"ApplyEyeMakeup/{path}", "ApplyEyeMakeup")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v_Archery_g01_c01.avi 3", r"list\.txt:2: 'v_Archery_g01_c01\.avi 3' must be <class>"),
        ("./Archery/v_Archery_g01_c01.avi", r"list\.txt:2: "),
        ("Archery/v_Archery_g01_c01.avi three", r"list\.txt:2: "),
        ("Archery/v_Archery_g01_c01.avi 4", r"list\.txt:2: class 'Archery' has number 4 .* 3 in"),
        ("Biking/v_Biking_g01_c01.avi", r"list\.txt:2: class 'Biking' is not in"),
    ],
)
def test_ucf101_faults(tmp_path, line, message):
    file = _write(tmp_path / "list.txt", f"Archery/v_Archery_g08_c01.avi 3\n{line}\n")
    labels = _write(tmp_path / "classInd.txt", "3 Archery\n")
    with pytest.raises(ManifestError, match=message):
        ucf101_entries(file, VIDEOS, labels)
    labels.write_text("3 Archery\nBiking\n")
    with pytest.raises(ManifestError, match=r"classInd\.txt:2: 'Biking' must be a number and"):
        ucf101_entries(file, VIDEOS, labels)


# HMDB51


@pytest.fixture
def splits(tmp_path):
    folder = tmp_path / "testTrainMulti_7030_splits"
    _write(
        folder / "ride_bike_test_split1.txt",
        "#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_le_med_0.avi 1 \r\n"
        "a b & (c);[d]!_ride_bike_u_cm_np1_ba_goo_2.avi 2 \r\n"
        "unused_ride_bike_u_cm_np1_ba_goo_1.avi 0 \r\n",
    )
    _write(folder / "ride_bike_test_split2.txt", "unused_ride_bike_u_cm_np1_ba_goo_1.avi 2\n")
    _write(folder / "brush_hair_test_split1.txt", "\ufeffApril_09_brush_hair_u_goo_0.avi 1\n")
    return folder


def test_hmdb51_splits_and_folds(splits):
    assert _pairs(hmdb51_entries(splits, VIDEOS, "train")) == [
        ("brush_hair/April_09_brush_hair_u_goo_0.avi", "brush_hair"),
        ("ride_bike/#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_le_med_0.avi", "ride_bike"),
    ]
    (entry,) = hmdb51_entries(splits, VIDEOS, "test")
    assert entry.path.name == "a b & (c);[d]!_ride_bike_u_cm_np1_ba_goo_2.avi"
    assert entry.origin == f"{splits}/ride_bike_test_split1.txt:2"
    (entry,) = hmdb51_entries(splits, VIDEOS, "test", fold=2)
    assert entry.path.name == "unused_ride_bike_u_cm_np1_ba_goo_1.avi"


def test_hmdb51_takes_re_encoded_videos(splits, tmp_path):
    _write(tmp_path / "ride_bike" / "a b & (c);[d]!_ride_bike_u_cm_np1_ba_goo_2.mp4", "")
    (entry,) = hmdb51_entries(splits, tmp_path, "test")
    assert entry.path.is_file()


def test_hmdb51_faults(splits):
    with pytest.raises(ManifestError, match=r"holds no <class>_test_split3\.txt"):
        hmdb51_entries(splits, VIDEOS, "train", fold=3)
    with pytest.raises(ManifestError, match="fold 2 marks no video as train"):
        hmdb51_entries(splits, VIDEOS, "train", fold=2)
    _write(splits / "clap_test_split1.txt", "a_clap_0.avi 1\n\nb_clap_1.avi 3\n")
    with pytest.raises(ManifestError, match=r"clap_test_split1\.txt:3: 'b_clap_1\.avi 3' must be"):
        hmdb51_entries(splits, VIDEOS, "train")


# VideoMAE


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("k400/abc_000001_000011.mp4 12", "k400/abc_000001_000011.mp4", "12"),
        ("my clip 7.mp4\t0", "my clip 7.mp4", "0"),
        ("läuft, schnell.webm, 07", "läuft, schnell.webm", "7"),
        ('"my clip.mp4" 3', "my clip.mp4", "3"),
        ("line\u2028end.mp4  173", "line\u2028end.mp4", "173"),
    ],
)
def test_videomae_lines(tmp_path, line, path, label):
    file = _write(tmp_path / "train.csv", f"\ufeff{line}\r\n\r\n")
    assert _pairs(videomae_entries(file, VIDEOS)) == [(path, label)]


def test_videomae_absolute_paths_stay(tmp_path):
    file = _write(tmp_path / "train.csv", "/data/ssv2/1.mp4 5\n")
    assert videomae_entries(file, VIDEOS)[0].path == Path("/data/ssv2/1.mp4")


@pytest.mark.parametrize("line", ["a.mp4", "a.mp4 jump", "a.mp4 1.0", "a.mp4 0 -1", "a.mp4 64 3"])
def test_videomae_faults(tmp_path, line):
    file = _write(tmp_path / "train.csv", f"a.mp4 1\n{line}\n")
    with pytest.raises(ManifestError, match=r"train\.csv:2: "):
        videomae_entries(file, VIDEOS)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ManifestError, match=r"gone\.csv: cannot be read \(No such file"):
        videomae_entries(tmp_path / "gone.csv", VIDEOS)
    (tmp_path / "latin.csv").write_bytes("läuft.mp4 1\n".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"latin\.csv: is not UTF-8"):
        videomae_entries(tmp_path / "latin.csv", VIDEOS)


def test_a_name_that_no_file_can_have_is_one_missing_file(tmp_path):
    (tmp_path / "Archery").mkdir()
    line = f"Archery/{'v' * 300}.avi 3"
    entries = ucf101_entries(_write(tmp_path / "list.txt", line), tmp_path)
    with pytest.raises(ManifestError, match=r"none of 1 videos .*File name too long"):
        prepare(entries, tmp_path / "m.parquet")


# The command


@pytest.fixture
def ucf101(tmp_path):
    """Four videos of two classes in the layout of UCF101, of which one does not exist."""
    names = ["Archery/v_Archery_g08_c01.avi", "Archery/v_Archery_g08_c02.avi"]
    names += ["Biking/v_Biking_g08_c01.avi", "Biking/v_Biking_g08_c02.avi"]
    for seed, name in enumerate(names[:3]):
        path = tmp_path / "UCF-101" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = np.random.default_rng(seed).integers(0, 256, (6, 32, 48, 3), np.uint8)
        write_h264(path, pictures, fps=12)
    _write(tmp_path / "classInd.txt", "3 Archery\r\n11 Biking\r\n")
    lines = [f"{name} {3 if name.startswith('A') else 11}" for name in names]
    return _write(tmp_path / "trainlist01.txt", "\r\n".join(lines))


def test_the_command_prepares_a_published_layout(ucf101, tmp_path, capsys):
    manifest, videos = tmp_path / "m.parquet", tmp_path / "UCF-101"
    arguments = ["--dataset", "ucf101", "--videos", str(videos)]
    arguments += ["--labels", str(tmp_path / "classInd.txt")]
    assert prepare_data_main([str(ucf101), str(manifest), *arguments]) == 0
    rows = read_manifest(manifest).to_pylist()
    assert [(row["path"], row["label"]) for row in rows] == [
        (str(videos / "Archery" / "v_Archery_g08_c01.avi"), "Archery"),
        (str(videos / "Archery" / "v_Archery_g08_c02.avi"), "Archery"),
        (str(videos / "Biking" / "v_Biking_g08_c01.avi"), "Biking"),
    ]
    assert {(row["frames"], row["fps"], row["width"], row["height"]) for row in rows} == {
        (6, 12.0, 48, 32)
    }
    printed = capsys.readouterr()
    assert "3 videos, 2 labels, 1 broken" in printed.out
    missing = videos / "Biking" / "v_Biking_g08_c02.avi"
    assert printed.err == f"broken: {missing}: no such file (named in {ucf101}:4)\n"


def test_the_command_re_encodes_a_published_layout(ucf101, tmp_path):
    manifest, videos, out = tmp_path / "m.parquet", tmp_path / "UCF-101", tmp_path / "out"
    arguments = ["--dataset", "ucf101", "--videos", str(videos), "--reencode", str(out)]
    assert prepare_data_main([str(ucf101), str(manifest), *arguments]) == 0
    rows = read_manifest(manifest).to_pylist()
    assert rows[2]["path"] == str(out / "Biking" / "v_Biking_g08_c01.mp4")
    again = ["--dataset", "ucf101", "--videos", str(out)]
    assert prepare_data_main([str(ucf101), str(tmp_path / "again.parquet"), *again]) == 0
    assert read_manifest(tmp_path / "again.parquet").to_pylist() == rows


@pytest.mark.parametrize(
    ("dataset", "source", "arguments", "label", "missing"),
    [
        ("ssv2", "train.json", [], "Holding something next to something", 1),
        ("kinetics", "all.csv", ["--split", "validation"], "counting, aloud", 1),
        ("hmdb51", "splits", ["--split", "test", "--fold", "2"], "clap", 0),
        ("videomae", "list.csv", [], "4", 0),
    ],
)
def test_the_command_knows_each_layout(
    ucf101, tmp_path, capsys, dataset, source, arguments, label, missing
):
    """The first video of each; its file is a copy of one of UCF101's."""
    _write(tmp_path / "train.json", json.dumps(SSV2))
    _write(tmp_path / "all.csv", KINETICS)
    _write(tmp_path / "splits" / "clap_test_split2.txt", "a_clap_u_0.avi 2\n")
    _write(tmp_path / "list.csv", "78687.webm 4\n")
    content = (tmp_path / "UCF-101" / "Archery" / "v_Archery_g08_c01.avi").read_bytes()
    for name in ("78687.webm", "clap/a_clap_u_0.avi", "_dbcJuKJQNs_000000_000010.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    manifest = tmp_path / "m.parquet"
    arguments = ["--dataset", dataset, "--videos", str(tmp_path), *arguments]
    assert prepare_data_main([str(tmp_path / source), str(manifest), *arguments]) == 0
    assert [row["label"] for row in read_manifest(manifest).to_pylist()] == [label]
    assert f"1 labels, {missing} broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "hmdb51"], "needs --split"),
        (["--dataset", "hmdb51", "--split", "validation"], "needs --split"),
        (["--dataset", "ucf101", "--split", "train"], "does not belong to --dataset ucf101"),
        (["--dataset", "kinetics", "--labels", "x"], "--labels does not belong"),
        (["--dataset", "kinetics", "--fold", "1"], "--fold does not belong"),
        (["--videos", "x"], "--videos does not belong to a folder or a list file"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(ucf101, arguments, message, capsys):
    with pytest.raises(SystemExit):
        prepare_data_main([str(ucf101), "m.parquet", *arguments])
    assert message in capsys.readouterr().err


def test_a_folder_of_videos_that_does_not_exist_is_named(ucf101, tmp_path, capsys):
    arguments = ["--dataset", "ucf101", "--videos", str(tmp_path / "gone")]
    assert prepare_data_main([str(ucf101), str(tmp_path / "m.parquet"), *arguments]) == 2
    assert f"{tmp_path / 'gone'}: is not a folder; --videos must" in capsys.readouterr().err


@pytest.mark.parametrize(("dataset", "labels"), [("ucf101", "1 Archery"), ("ssv2", '{"X": "0"}')])
def test_the_command_checks_classes(ucf101, tmp_path, dataset, labels, capsys):
    source = ucf101 if dataset == "ucf101" else _write(tmp_path / "a.json", json.dumps(SSV2))
    arguments = ["--dataset", dataset, "--labels", str(_write(tmp_path / "labels", labels))]
    assert prepare_data_main([str(source), str(tmp_path / "m.parquet"), *arguments]) == 2
    assert "class '" in capsys.readouterr().err
