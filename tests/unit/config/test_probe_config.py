"""The probe's configuration: what it takes over from the run, and its mistakes in one line."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tats_ray.cli.evaluation import probe_main
from tats_ray.config import dump_config
from tats_ray.config.probe import load_probe_config
from tats_ray.errors import ConfigError
from tests.conftest import tiny_config


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "moved" / "test"
    folder.mkdir(parents=True)
    config = tiny_config("run.output_dir=elsewhere", "tracking.mlflow=false", "data.stride=2")
    (folder / "config.yaml").write_text(dump_config(config))
    return folder


def _load(run, *overrides):
    given = [f"probe.checkpoint={run}", "probe.train=a.parquet", "probe.test=b.parquet"]
    return load_probe_config(None, [*given, *overrides])


def test_the_runs_settings_are_the_defaults(run):
    config = _load(run, "data.frames=4", "cluster.threads=2", "tracking.experiment=mine")
    assert config.run.data.frames == 4
    assert config.run.data.stride == 2
    assert config.run.grid.time == 2
    assert (config.run.cluster.mode, config.run.cluster.threads) == ("serial", 2)
    assert (config.run.tracking.mlflow, config.run.tracking.experiment) == (False, "mine")
    assert config.run.model.width == 24


def test_a_run_is_found_where_it_lies(run):
    config = _load(run)
    assert config.directory == run
    assert config.run.run.output_dir == str(run.parent)
    one = _load(run, f"probe.checkpoint={run}/checkpoints/step_00000004")
    assert one.directory == run
    assert config.resolved.run.name == "test-probe-default"


def test_a_file_and_overrides(run, tmp_path):
    file = tmp_path / "probe.yaml"
    file.write_text(f"probe:\n  checkpoint: {run}\n  train: a.parquet\n  l2: [0.1]\n")
    config = load_probe_config(str(file), ["probe.folds=f.csv", "probe.method=knn"])
    assert config.probe.l2 == [0.1]
    assert config.probe.methods == ["knn"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("probe.view=2", "probe.view: unknown key; did you mean probe.views?"),
        ("data.manifest=x", "data.manifest: unknown key; known here: frames, stride"),
        ("model.depth=3", "tells its own; model is for official files"),
        ("cluster.thread=2", "cluster.thread: unknown key; did you mean cluster.threads?"),
        ("data.frames=3", "data.frames 3 is not divisible by model.tubelet 2"),
        ("data.stride=0", "data.stride: input should be greater than or equal to 1, got 0"),
        ("probe.l2=[0.0]", "probe.l2.0: input should be greater than 0"),
        ("probe.layer=3", "probe.layer 3: the encoder has 2 blocks"),
        ("probe.pool=[1, 9, 1]", "probe.pool [1, 9, 1]: at most [4, 2, 2] fit the tokens"),
        ("probe.test=null", "nothing is held out: give probe.test, or probe.folds"),
        ("probe.checkpoint=/no/where", "probe.checkpoint /no/where: is neither a run directory"),
    ],
)
def test_mistakes_are_one_line(run, override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        _load(run, override)


def test_changes_lie_between_slices(run):
    _load(run, "probe.pool=[4, 1, 1]")
    with pytest.raises(ConfigError, match="changes between slices counted"):
        _load(run, "probe.pool=[4, 1, 1]", "probe.change=true")


def test_the_command_line_ends_with_two(capsys, run):
    assert probe_main(["probe.train=a"]) == 2
    assert capsys.readouterr().err == (
        "error: probe.checkpoint: is required; set it in the file or as probe.checkpoint=...\n"
    )


def test_a_dry_run_needs_no_torch(run):
    given = [f"probe.checkpoint={run}", "probe.train=a", "probe.test=b", "--dry-run"]
    script = (
        "import sys; from tats_ray.cli.evaluation import probe_main; "
        f"assert probe_main({given!r}) == 0; "
        "assert not {'torch', 'ray', 'pyarrow'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "name: test-probe-default" in done.stdout
    assert "stride: 2" in done.stdout
