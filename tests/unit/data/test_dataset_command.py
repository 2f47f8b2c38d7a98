"""tats-ray prepare on the layouts of published data sets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tats_ray.cli.prepare import prepare_data_main
from tats_ray.data.manifest import read_manifest
from tats_ray.data.video_writer import write_h264
from tests.annotations import KINETICS, SSV2, write


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
    write(tmp_path / "classInd.txt", "3 Archery\r\n11 Biking\r\n")
    lines = [f"{name} {3 if name.startswith('A') else 11}" for name in names]
    return write(tmp_path / "trainlist01.txt", "\r\n".join(lines))


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
    write(tmp_path / "train.json", json.dumps(SSV2))
    write(tmp_path / "all.csv", KINETICS)
    write(tmp_path / "splits" / "clap_test_split2.txt", "a_clap_u_0.avi 2\n")
    write(tmp_path / "list.csv", "78687.webm 4\n")
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
    source = ucf101 if dataset == "ucf101" else write(tmp_path / "a.json", json.dumps(SSV2))
    arguments = ["--dataset", dataset, "--labels", str(write(tmp_path / "labels", labels))]
    assert prepare_data_main([str(source), str(tmp_path / "m.parquet"), *arguments]) == 2
    assert "class '" in capsys.readouterr().err
