"""What a command says where it cannot begin, before anything heavy is loaded."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tats_ray.cli.benchmark import benchmark_main
from tats_ray.cli.evaluation import evaluate_main
from tats_ray.cli.train import finetune_main, pretrain_main
from tats_ray.config import dump_config
from tests.conftest import tiny_config
from tests.numbered_videos import write_numbered, x264


@pytest.mark.parametrize("main", [pretrain_main, finetune_main, benchmark_main])
def test_a_job_that_is_given_nothing_says_how_to_begin(main, capsys):
    assert main([]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: there is nothing to run: begin with tats-ray ")
    assert "--config " in message and message.count("\n") == 1


@pytest.mark.parametrize("folder", ["s3://bucket/runs", "gs://bucket", "hdfs://host/runs"])
def test_an_address_as_output_directory_is_refused(folder, tmp_path, monkeypatch, capsys):
    """It used to be taken for the name of a folder."""
    monkeypatch.chdir(tmp_path)
    assert pretrain_main(["run.name=a", f"run.output_dir={folder}"]) == 2
    assert f"run.output_dir: '{folder}' is an address" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_job_says_what_it_does_before_it_loads_anything_heavy(tmp_path):
    script = (
        "import sys; from tats_ray.cli import train; "
        "train._pretrain = lambda *_: print('torch' in sys.modules, 'ray' in sys.modules); "
        f"train.pretrain_main(['run.name=a', 'run.output_dir={tmp_path}', 'cluster.mode=serial'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"{tmp_path}/a: 100000 steps of 256 clips, in this process", "False False",
    ]  # fmt: skip


def test_evaluating_a_pretraining_run_says_what_to_do_instead(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(dump_config(tiny_config()))
    assert evaluate_main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path}: is a pre-training run, which has no classifier" in message
    assert "tats-ray finetune" in message and "tats-ray probe" in message


def test_decoding_is_timed_as_a_video_is_read(tmp_path, capsys):
    open_groups = write_numbered(tmp_path, x264(".mp4", 12, 2, "open-gop=1"))
    closed = write_numbered(tmp_path, x264(".mkv", 12, 2))
    words = [str(open_groups), "data.frames=4", str(closed), "data.stride=2"]
    assert benchmark_main(["decode", "--repeats", "2", *words]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{open_groups}: seek \d+ ms/clip, decord (\d+ ms|fails)", first)
    assert re.fullmatch(rf"{closed}: decord \d+ ms/clip, decord \d+ ms", second)


def test_an_unknown_benchmark_is_refused(capsys):
    assert benchmark_main(["stop"]) == 2
    assert "tats-ray benchmark step|sampler|" in capsys.readouterr().err
