"""A run directory continues its own run and nothing else."""

from __future__ import annotations

import os

import pytest

from tats_ray.config import load_config
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.errors import RunDirectoryError
from tats_ray.storage import replacing
from tests.conftest import tiny_config


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "m.parquet"
    path.write_bytes(b"some rows")
    return path


def _open(tmp_path, manifest, *overrides, must_exist=False):
    directory = RunDirectory(tiny_config(f"run.output_dir={tmp_path}/runs", *overrides))
    directory.open(manifest, must_exist=must_exist)
    return directory


def test_the_same_run_continues_with_other_execution_settings(tmp_path, manifest):
    _open(tmp_path, manifest).close()
    directory = _open(
        tmp_path, manifest, "cluster.mode=local", "rl.rollout_workers=4", "train.workers=2",
        "checkpoint.interval=2", "tracking.log_interval=1", must_exist=True,
    )  # fmt: skip
    directory.close()
    stored = load_config(directory.config_file, [])
    assert (stored.cluster.mode, stored.rl.rollout_workers, stored.train.workers) == ("local", 4, 2)
    assert stored == directory.config


@pytest.mark.parametrize(
    "override",
    ["train.steps=99", "train.batch_size=16", "masking.ratio=0.5", "rl.lr=0.1", "run.seed=3",
     "rl.staleness=2", "data.stride=2"],
)  # fmt: skip
def test_another_run_is_refused_with_the_reason(tmp_path, manifest, override):
    _open(tmp_path, manifest).close()
    with pytest.raises(RunDirectoryError, match=override.split("=", maxsplit=1)[0]) as caught:
        _open(tmp_path, manifest, override)
    assert "use another run.name" in str(caught.value)


def test_a_changed_manifest_is_refused(tmp_path, manifest):
    _open(tmp_path, manifest).close()
    manifest.write_bytes(b"other rows")
    with pytest.raises(RunDirectoryError, match="manifest has changed"):
        _open(tmp_path, manifest)


def test_two_processes_do_not_share_a_run(tmp_path, manifest):
    first = _open(tmp_path, manifest)
    with pytest.raises(RunDirectoryError, match="another process works on this run"):
        _open(tmp_path, manifest)
    first.close()
    _open(tmp_path, manifest).close()


def test_resume_needs_a_run(tmp_path, manifest):
    with pytest.raises(RunDirectoryError, match="holds no run to resume"):
        _open(tmp_path, manifest, must_exist=True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "config.yaml"])
def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path, manifest, name):
    directory = _open(tmp_path, manifest)
    directory.close()
    before = sorted(directory.path.iterdir())
    with replacing(tmp_path / name) as aside:
        aside.write_text("whole")
    left = directory.path / aside.name.replace(str(os.getpid()), "12345")
    left.write_text("half")
    _open(tmp_path, manifest).close()
    assert sorted(directory.path.iterdir()) == before
