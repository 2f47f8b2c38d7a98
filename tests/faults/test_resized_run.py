"""A run that goes on with other numbers of processes than it began with."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from tats_ray.tracking.metrics_file import read_records
from tats_ray.training.checkpoint import checkpoints, read_progress, read_state
from tests.conftest import tiny_config
from tests.faults.signalled import RAY, kill_while_it_writes, newest_step
from tests.iterations import log_probs
from tests.runs.command import STEPS, Run

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("ordinary_environment"),
    pytest.mark.timeout(1200),
]

SETTINGS = [
    "train.batch_size=4", "rl.rollout_clips=1", "rl.epochs=2", "rl.minibatch_clips=2",
    "rl.staleness=0", "checkpoint.interval=1", "tracking.mlflow=false", "tracking.log_interval=1",
    "data.augment.crop=multi_scale",
]  # fmt: skip
ONE = [*RAY, "train.workers=1", "rl.rollout_workers=1"]
MORE = [*RAY, "train.workers=2", "rl.rollout_workers=3"]
TOO_MANY = [*RAY, "train.workers=3", "rl.rollout_workers=1"]
TOLERANCE = 2e-5  # two workers sum their gradients in another order than one


def _files(run):
    return {file: file.stat().st_mtime_ns for file in run.path.glob("**/*") if file.is_file()}


def test_a_run_goes_on_with_other_numbers_of_processes(synthetic, tmp_path):
    """Serial, then one worker and one rollout worker, then two and three: global batch, learning
    rate and order of the data are those of an undisturbed run."""
    whole = Run(synthetic, tmp_path, "whole", *SETTINGS)
    whole.finish()

    kill_while_it_writes(serial := Run(synthetic, tmp_path, "run", *SETTINGS), serial.start(), 4)
    one = Run(synthetic, tmp_path, "run", *SETTINGS, *ONE)
    kill_while_it_writes(one, one.start("--resume"), 8)
    assert newest_step(one) == 7

    before = _files(one)
    refused = Run(synthetic, tmp_path, "run", *SETTINGS, *TOO_MANY).start("--resume")
    output, _ = refused.communicate(timeout=300)
    assert refused.returncode == 2
    assert output == (
        "error: train.batch_size 4 is not divisible by train.workers 3: use "
        "train.batch_size=6, or for a run that has begun another number of workers\n"
    )
    assert _files(one) == before

    more = Run(synthetic, tmp_path, "run", *SETTINGS, *MORE)
    more.finish("--resume")
    assert more.summary()["resumed_from"] == 7
    _assert_same(whole, more)


def _assert_same(whole, run):
    records = [read_records(one.path / "metrics.jsonl") for one in (whole, run)]
    assert [record["step"] for record in records[1]] == list(range(1, STEPS + 1))
    for wanted, got in zip(*records, strict=True):
        assert got["lr"] == wanted["lr"]
        assert got["loss"] == pytest.approx(wanted["loss"], abs=TOLERANCE)
        assert got.get("rollout/staleness", 0) == 0  # serial rounds have none
    folders = [checkpoints(one.path / "checkpoints")[-1] for one in (whole, run)]
    wanted, got = (read_progress(folder) for folder in folders)
    assert (got.step, got.clips, got.cursor) == (STEPS, 4 * STEPS, wanted.cursor)
    states = [read_state(folder) for folder in folders]
    for name, value in states[0].trainer.files["mae"].items():
        assert np.allclose(value, states[1].trainer.files["mae"][name], rtol=0, atol=TOLERANCE), (
            name
        )
    said = [log_probs(tiny_config(), state.policy.sampler) for state in states]
    assert torch.allclose(*said, rtol=0, atol=10 * TOLERANCE)


def test_a_stopped_run_keeps_its_batch(synthetic, tmp_path):
    """Another global batch would change the learning rate and the order of the data."""
    run = Run(synthetic, tmp_path, "batch", *SETTINGS)
    process = run.start()
    run.wait_for("checkpoints/step_*", process)
    process.send_signal(signal.SIGTERM)
    process.wait()
    other = Run(synthetic, tmp_path, "batch", *SETTINGS, "train.batch_size=8")
    process = other.start("--resume")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "was started with train.batch_size=4, not 8" in output
