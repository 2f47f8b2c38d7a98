"""Whole serial runs as a user starts them: ended, killed, stopped, continued."""

from __future__ import annotations

import signal

import mlflow
import numpy as np
import pytest

from tats_ray.tracking.metrics_file import read_records
from tests.runs.command import STEPS, Run


@pytest.fixture(scope="module")
def whole(synthetic, tmp_path_factory):
    run = Run(synthetic, tmp_path_factory.mktemp("whole"), "whole")
    run.log = run.finish()
    return run


def test_a_run_leaves_what_it_should(whole):
    summary = whole.summary()
    assert set(summary) >= {
        "steps", "clips", "loss_first", "loss_last", "motion_enrichment", "static_enrichment",
        "motion_enrichment_random", "clips_per_second", "mlflow_run_id", "resumed_from",
    }  # fmt: skip
    assert (summary["steps"], summary["clips"]) == (STEPS, 8 * STEPS)
    assert summary["resumed_from"] is None
    assert summary["loss_last"] < summary["loss_first"]
    records = read_records(whole.path / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(2, STEPS + 1, 2))
    # Measured at the end only, and it belongs to the last record.
    assert records[-1]["enrichment/moving"] == pytest.approx(summary["motion_enrichment"])
    assert (whole.path / "config.yaml").exists()
    assert len(list((whole.path / "pictures").glob("*.png"))) == 4  # one per clip
    assert "step 12/12  loss" in whole.log


@pytest.mark.slow
def test_another_run_starts_from_its_weights(whole, synthetic):
    """With rates that change nothing, the first step's weights are the initial ones."""
    still = ["train.base_lr=1e-12", "train.min_lr=0.0", "rl.lr=1e-12", "run.seed=7"]
    given = f"train.initial_weights={whole.path}"
    after = Run(synthetic, whole.output, "after", given, *still, "train.steps=1")
    after.finish()
    weights, wanted = after.weights(1), whole.weights()
    for name, value in wanted.items():
        if "optimizer" not in name:
            assert np.allclose(weights[name], value, rtol=0, atol=1e-6), name


def test_mlflow_has_the_same_records_and_pictures(whole):
    client = mlflow.MlflowClient(f"sqlite:///{whole.output}/mlflow.db")
    run = client.get_run(whole.summary()["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "loss")
    records = read_records(whole.path / "metrics.jsonl")
    assert [(p.step, p.value) for p in history] == [(r["step"], r["loss"]) for r in records]
    assert client.list_artifacts(run.info.run_id, "pictures")


def test_the_same_command_again_has_nothing_to_do(whole):
    before = (whole.path / "metrics.jsonl").read_bytes()
    assert "nothing to do" in whole.finish()
    assert (whole.path / "metrics.jsonl").read_bytes() == before


def _same_result(whole, other):
    """Weights bit for bit, records once each, one MLflow run without a doubled step."""
    wanted, got = whole.weights(), other.weights()
    assert wanted.keys() == got.keys()
    assert all(np.array_equal(wanted[key], got[key]) for key in wanted)
    losses = [
        [(record["step"], record["loss"]) for record in read_records(run.path / "metrics.jsonl")]
        for run in (whole, other)
    ]
    assert losses[0] == losses[1]
    client = mlflow.MlflowClient(f"sqlite:///{other.output}/mlflow.db")
    experiment = client.get_experiment_by_name("tats_ray").experiment_id
    (stored,) = client.search_runs([experiment])
    assert stored.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(stored.info.run_id, "loss")]
    assert steps == list(range(2, STEPS + 1, 2))


def test_killed_and_continued_equals_uninterrupted(whole, synthetic, tmp_path):
    run = Run(synthetic, tmp_path, "killed")
    process = run.start()
    run.wait_for("checkpoints/step_*", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run.path / "summary.json").exists()
    run.finish()
    assert run.summary()["steps"] == STEPS
    assert run.summary()["resumed_from"] in (3, 6, 9)
    _same_result(whole, run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_cleanly_with_a_checkpoint(whole, synthetic, tmp_path, number):
    run = Run(synthetic, tmp_path, "stopped")
    process = run.start()
    run.wait_for("checkpoints/step_*", process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "asked to stop" in output or run.summary()
    run.finish("--resume")
    _same_result(whole, run)
