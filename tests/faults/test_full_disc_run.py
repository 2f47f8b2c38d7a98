"""The pre-training command on a disc that fills up: one line, and the same command goes on."""

from __future__ import annotations

import numpy as np
import pytest

from tats_ray.tracking.metrics_file import read_records
from tats_ray.training.checkpoint import checkpoints, read_state
from tests.faults.disc import SmallDisc
from tests.runs.command import STEPS, Run

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


def test_a_disc_that_fills_up_costs_one_line_and_no_checkpoint(whole, synthetic, disc_of):
    disc: SmallDisc = disc_of(int(4.5 * _size_kib(whole)) + 64)
    run = Run(synthetic, disc.path, "full", *SETTINGS)
    message = _fails(run)
    assert message.startswith(f"error: {run.path / 'checkpoints'}")
    assert "No space left on device" in message
    assert "free some space there" in message
    found = checkpoints(run.path / "checkpoints")
    assert 1 <= len(found) < STEPS
    assert read_state(found[-1]).train.step == len(found)
    disc.resize(32 * _size_kib(whole))
    run.finish("--resume")
    assert run.summary()["resumed_from"] == len(found)
    wanted, got = whole.weights(), run.weights()
    assert all(np.array_equal(wanted[key], got[key]) for key in wanted)
    losses = [
        [(record["step"], record["loss"]) for record in read_records(one.path / "metrics.jsonl")]
        for one in (whole, run)
    ]
    assert losses[0] == losses[1]


def test_a_read_only_place_is_named_before_anything_starts(synthetic, disc_of):
    disc = disc_of(256)
    disc.make_read_only()
    run = Run(synthetic, disc.path, "never", *SETTINGS)
    message = _fails(run)
    assert message == (
        f"error: {run.path}: cannot be written (Read-only file system); make it writable, or "
        "choose another place"
    )
