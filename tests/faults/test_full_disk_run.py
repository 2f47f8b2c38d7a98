"""Pre-training and comparing on a disk that fills up: one line, and the same command goes on."""

from __future__ import annotations

import numpy as np
import pytest

from tats_ray.tracking.metrics_file import read_records
from tats_ray.training.checkpoint import checkpoints, read_state
from tests.faults.disk import SmallDisc
from tests.runs.command import STEPS, Run
from tests.runs.test_compare_job import _finish, _rows, _tree

pytestmark = pytest.mark.faults
SETTINGS = ["tracking.mlflow=false", "checkpoint.interval=1", "checkpoint.keep=99"]


@pytest.fixture(scope="module")
def whole(synthetic, tmp_path_factory):
    run = Run(synthetic, tmp_path_factory.mktemp("whole"), "whole", *SETTINGS)
    run.finish()
    return run


def _fails(run: Run, *flags: str) -> str:
    process = run.start(*flags)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    assert "Traceback" not in output, output
    return output.splitlines()[-1]


def _size_kib(run: Run) -> int:
    newest = checkpoints(run.path / "checkpoints")[-1]
    return sum(file.stat().st_size for file in newest.iterdir()) // 1024


def test_a_disk_that_fills_up_costs_one_line_and_no_checkpoint(whole, synthetic, disk_of):
    disk: SmallDisc = disk_of(int(4.5 * _size_kib(whole)) + 64)
    run = Run(synthetic, disk.path, "full", *SETTINGS)
    message = _fails(run)
    assert message.startswith(f"error: {run.path / 'checkpoints'}")
    assert "No space left on device" in message
    assert "free some space there" in message
    found = checkpoints(run.path / "checkpoints")
    assert 1 <= len(found) < STEPS
    assert read_state(found[-1]).trainer.step == len(found)
    disk.resize(32 * _size_kib(whole))
    run.finish("--resume")
    assert run.summary()["resumed_from"] == len(found)
    wanted, got = whole.weights(), run.weights()
    assert all(np.array_equal(wanted[key], got[key]) for key in wanted)
    losses = [
        [(record["step"], record["loss"]) for record in read_records(one.path / "metrics.jsonl")]
        for one in (whole, run)
    ]
    assert losses[0] == losses[1]


def test_a_read_only_place_is_named_before_anything_starts(synthetic, disk_of):
    disk = disk_of(256)
    disk.make_read_only()
    run = Run(synthetic, disk.path, "never", *SETTINGS)
    message = _fails(run)
    assert message == (
        f"error: {run.path}: cannot be written (Read-only file system); make it writable, or "
        "choose another place"
    )


@pytest.mark.parametrize("execution", ["in_turn", "tasks"])
def test_a_comparison_ends_at_the_first_write_that_fails(execution, synthetic, disk_of, tmp_path):
    """Every further trial would meet the same disk; with space the same command goes on."""
    disk = disk_of(160)
    section = {"execution": execution, "seeds": [0]}
    tree = _tree(
        synthetic, disk.path, compare=section, tracking={"mlflow": False},
        cluster={"mode": "local", "cpus": 1, "object_store_mb": 100},
    )  # fmt: skip
    tree["pretrain"]["cluster"] = {"mode": "serial"}
    output = _finish(tree, tmp_path, code=1)
    message = output.splitlines()[-1]
    trials = disk.path / "study" / "trials"
    assert message.startswith(f"error: {trials}"), output
    assert "cannot be written (No space left on device); free some space there" in message
    assert "Traceback" not in output, output
    assert "failed" not in output, output
    if execution == "in_turn":  # a task may have begun before the first one's end is known
        assert [path.name for path in trials.iterdir()] == ["random-0.75-0"]
    disk.resize(8192)
    _finish(tree, tmp_path)
    assert len(_rows(disk.path)) == 2


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_comparison_names_its_place_before_anything_starts(fault, synthetic, disk_of, tmp_path):
    disk = disk_of(64)
    if fault == "full":
        (disk.path / "study").mkdir()
        disk.fill()
    else:
        disk.make_read_only()
    output = _finish(_tree(synthetic, disk.path), tmp_path, code=1)
    assert output.count("\n") == 1
    assert output.startswith(f"error: {disk.path / 'study'}")
