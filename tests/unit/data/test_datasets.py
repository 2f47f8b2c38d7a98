"""Published annotation files are read as they are, and what is wrong in them is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tats_ray.data.datasets.annotation import Entry
from tats_ray.data.datasets.kinetics import kinetics_entries
from tats_ray.data.datasets.lists import videomae_entries
from tats_ray.data.datasets.ssv2 import ssv2_entries
from tats_ray.data.datasets.ucf101_hmdb51 import hmdb51_entries, ucf101_entries
from tats_ray.data.prepare import prepare
from tats_ray.errors import ManifestError
from tests.annotations import KINETICS, LABELS, SSV2, write

VIDEOS = Path("/videos")


def _pairs(entries: list[Entry], folder: Path = VIDEOS) -> list[tuple[str, str | None]]:
    return [(str(entry.path.relative_to(folder)), entry.label) for entry in entries]


# Something-Something V2


def test_ssv2_classes_are_templates_without_brackets(tmp_path):
    file = write(tmp_path / "train.json", "\ufeff" + json.dumps(SSV2, ensure_ascii=False))
    labels = write(tmp_path / "labels.json", json.dumps(LABELS))
    entries = ssv2_entries(file, VIDEOS, labels)
    assert _pairs(entries) == list(zip(["78687.webm", "42326.webm"], LABELS, strict=True))
    assert [entry.origin for entry in entries] == [f"{file}: entry 1", f"{file}: entry 2"]


def test_ssv2_takes_the_file_that_is_there(tmp_path):
    file = write(tmp_path / "train.json", json.dumps(SSV2))
    write(tmp_path / "42326.mp4", "")
    paths = [path for path, _ in _pairs(ssv2_entries(file, tmp_path), tmp_path)]
    assert paths == ["78687.webm", "42326.mp4"]


def test_ssv2_test_files_have_no_classes(tmp_path):
    file = write(tmp_path / "test.json", '[{"id": "1420"}, {"id": "3"}]')
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
    labels = write(tmp_path / "labels.json", json.dumps(LABELS))
    with pytest.raises(ManifestError, match=message):
        ssv2_entries(write(tmp_path / "a.json", text), VIDEOS, labels)


# Kinetics


def test_kinetics_names_and_quoted_labels(tmp_path):
    file = write(tmp_path / "train.csv", KINETICS)
    entries = kinetics_entries(file, VIDEOS)
    assert _pairs(entries) == [
        ("--3ouPhoy2A_000020_000030.mp4", "petting animal (not cat)"),
        ("_dbcJuKJQNs_000000_000010.mp4", "counting, aloud"),
        ("0-I2mCJCs6A_001234_001244.mp4", "massaging person's head"),
        ("zzzzzzzzzzz_000005_000015.mp4", 'saying "olé"'),
    ]
    assert [entry.origin[len(str(file)) :] for entry in entries] == [":2", ":3", ":4", ":6"]


def test_kinetics_videos_lie_flat_or_in_their_class(tmp_path):
    file = write(tmp_path / "train.csv", KINETICS)
    there = [
        "_dbcJuKJQNs_000000_000010.mp4",
        "massaging_person's_head/0-I2mCJCs6A_001234_001244.mp4",
        'saying "olé"/zzzzzzzzzzz_000005_000015.mp4',
    ]
    for name in there:
        write(tmp_path / name, "")
    found = [path for path, _ in _pairs(kinetics_entries(file, tmp_path), tmp_path)]
    assert found == ["--3ouPhoy2A_000020_000030.mp4", *there]


@pytest.mark.parametrize(
    ("split", "lines"),
    [("train", [2]), ("validation", [3, 4]), ("test", [6]), (None, [2, 3, 4, 6])],
)
def test_kinetics_splits(tmp_path, split, lines):
    file = write(tmp_path / "all.csv", KINETICS)
    origins = [entry.origin for entry in kinetics_entries(file, VIDEOS, split)]
    assert origins == [f"{file}:{line}" for line in lines]


def test_kinetics_columns_go_by_name_and_the_label_may_be_held_out(tmp_path):
    text = "youtube_id,time_start,time_end,split\n-1IwGSjbb0A,7,17,test\n"
    file = write(tmp_path / "test.csv", text)
    assert _pairs(kinetics_entries(file, VIDEOS)) == [("-1IwGSjbb0A_000007_000017.mp4", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abseiling,a,0,10,train\n", r":1: column 'youtube_id' is missing"),
        ("label,youtube_id,time_start,time_end\na,b,1,2\n", r":1: column 'split' is missing"),
        (KINETICS + "counting, aloud,a,0,10,train,0\n", r":7: 7 fields .* names 6"),
        (
            KINETICS + 'x,a,0,10,train,0\n"x,b,0,10,train,0\ny,c,0,10,train,0\n',
            r":8: .*; fix the double quotes",
        ),
        (KINETICS + "x,a,0.5,10,train,0\n", r":7: time_start '0.5' must be whole seconds"),
        (KINETICS + ",a,0,10,train,0\n", r":7: label is empty"),
        ("label,youtube_id,time_start,time_end,split\na,b,1,2,val\n", r"no rows of the split"),
        ("label,youtube_id,time_start,time_end,split\n", r"no rows of the split"),
    ],
)
def test_kinetics_faults(tmp_path, text, message):
    with pytest.raises(ManifestError, match=r"a\.csv.*" + message):
        kinetics_entries(write(tmp_path / "a.csv", text), VIDEOS, "train")


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
    file = write(tmp_path / "trainlist01.txt", f"\ufeff{line}\r\n\r\n")
    labels = write(tmp_path / "classInd.txt", "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n")
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
    file = write(tmp_path / "list.txt", f"Archery/v_Archery_g08_c01.avi 3\n{line}\n")
    labels = write(tmp_path / "classInd.txt", "3 Archery\n")
    with pytest.raises(ManifestError, match=message):
        ucf101_entries(file, VIDEOS, labels)
    labels.write_text("3 Archery\nBiking\n")
    with pytest.raises(ManifestError, match=r"classInd\.txt:2: 'Biking' must be a number and"):
        ucf101_entries(file, VIDEOS, labels)


# HMDB51


@pytest.fixture
def splits(tmp_path):
    folder = tmp_path / "testTrainMulti_7030_splits"
    write(
        folder / "ride_bike_test_split1.txt",
        "#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_le_med_0.avi 1 \r\n"
        "a b & (c);[d]!_ride_bike_u_cm_np1_ba_goo_2.avi 2 \r\n"
        "unused_ride_bike_u_cm_np1_ba_goo_1.avi 0 \r\n",
    )
    write(folder / "ride_bike_test_split2.txt", "unused_ride_bike_u_cm_np1_ba_goo_1.avi 2\n")
    write(folder / "brush_hair_test_split1.txt", "\ufeffApril_09_brush_hair_u_goo_0.avi 1\n")
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
    write(tmp_path / "ride_bike" / "a b & (c);[d]!_ride_bike_u_cm_np1_ba_goo_2.mp4", "")
    (entry,) = hmdb51_entries(splits, tmp_path, "test")
    assert entry.path.is_file()


def test_hmdb51_faults(splits):
    with pytest.raises(ManifestError, match=r"holds no <class>_test_split3\.txt"):
        hmdb51_entries(splits, VIDEOS, "train", fold=3)
    with pytest.raises(ManifestError, match="fold 2 marks no video as train"):
        hmdb51_entries(splits, VIDEOS, "train", fold=2)
    write(splits / "clap_test_split1.txt", "a_clap_0.avi 1\n\nb_clap_1.avi 3\n")
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
    file = write(tmp_path / "train.csv", f"\ufeff{line}\r\n\r\n")
    assert _pairs(videomae_entries(file, VIDEOS)) == [(path, label)]


def test_videomae_absolute_paths_stay(tmp_path):
    file = write(tmp_path / "train.csv", "/data/ssv2/1.mp4 5\n")
    assert videomae_entries(file, VIDEOS)[0].path == Path("/data/ssv2/1.mp4")


@pytest.mark.parametrize("line", ["a.mp4", "a.mp4 jump", "a.mp4 1.0", "a.mp4 0 -1", "a.mp4 64 3"])
def test_videomae_faults(tmp_path, line):
    file = write(tmp_path / "train.csv", f"a.mp4 1\n{line}\n")
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
    entries = ucf101_entries(write(tmp_path / "list.txt", line), tmp_path)
    with pytest.raises(ManifestError, match=r"none of 1 videos .*File name too long"):
        prepare(entries, tmp_path / "m.parquet")


# The command
