"""MLflow's SQLite file on a disk that is full or read-only: training goes on, one line tells it,
and the same command synchronises when the disk is well again."""

from __future__ import annotations

import json

import mlflow
import pytest

from tats_ray.tracking.metrics_file import read_records
from tests.runs.command import STEPS, Run

pytestmark = pytest.mark.faults
TUBE = ("masking.system=tube", "tracking.wait_seconds=1")


def _run(synthetic, output, disk, *more):
    return Run(synthetic, output, "run", f"tracking.uri=sqlite:///{disk.path}/m.db", *TUBE, *more)


def _told_in_lines(output, reason):
    assert "Traceback" not in output, output
    assert "sqlalche" not in output.lower(), output
    warnings = [line for line in output.splitlines() if "MLflow is unreachable" in line]
    assert len(warnings) == 1, output  # a minute each; the runs of these tests take less
    assert reason in warnings[0]
    assert "run the same command again to upload the rest" in output


def _synchronised(run, disk, steps):
    """The store has every step once."""
    run.finish("tracking.wait_seconds=100")
    client = mlflow.MlflowClient(f"sqlite:///{disk.path}/m.db")
    history = client.get_metric_history(run.summary()["mlflow_run_id"], "loss")
    assert [point.step for point in history] == list(range(2, steps + 1, 2))


def test_a_disk_that_is_full_from_the_start(synthetic, tmp_path, disk_of):
    disk = disk_of(4096)
    disk.fill()
    run = _run(synthetic, tmp_path, disk)
    _told_in_lines(run.finish(), "(OperationalError: database or disk is full)")
    assert [record["step"] for record in read_records(run.path / "metrics.jsonl")] == [
        *range(2, STEPS + 1, 2)
    ]
    disk.free()
    _synchronised(run, disk, STEPS)


def test_a_read_only_disk(synthetic, tmp_path, disk_of):
    disk = disk_of(64)
    disk.make_read_only()
    run = _run(synthetic, tmp_path, disk)
    _told_in_lines(run.finish(), "(OSError: [Errno 30] Read-only file system: ")


def test_a_disk_that_fills_up_on_the_way(synthetic, tmp_path, disk_of):
    disk, steps = disk_of(4096), 300
    run = _run(synthetic, tmp_path, disk, f"train.steps={steps}")
    process = run.start()
    run.wait_for("checkpoints/step_*", process)
    while "mlflow_run_id" not in json.loads((run.path / "run.json").read_text()):
        assert process.poll() is None, process.stdout.read()
    disk.fill()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    _told_in_lines(output, "(OperationalError: database or disk is full)")
    disk.free()
    _synchronised(run, disk, steps)
