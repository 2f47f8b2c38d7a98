"""Whole Ray runs as a user starts them, on a local cluster that the command starts itself."""

from __future__ import annotations

import signal

import mlflow
import psutil
import pytest

from tats_ray.tracking.metrics_file import read_records
from tests.runs.command import STEPS, Run

RAY = ["cluster.mode=local", "rl.rollout_workers=2", "cluster.object_store_mb=200"]


def _ray_processes(parent: int) -> list[psutil.Process]:
    """Everything that a run started, while its driver is alive; but Ray's agents, which look for
    their parent every quarter of a minute only."""
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if "Agent" not in child.name()]


@pytest.mark.slow
def test_a_killed_driver_is_continued_by_the_same_command(synthetic, tmp_path):
    run = Run(synthetic, tmp_path, "ray", *RAY)
    process = run.start()
    run.wait_for("checkpoints/step_*", process)
    started = _ray_processes(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == [], "a killed driver leaves nothing running"
    output = run.finish()
    assert "continuing" in output
    summary = run.summary()
    assert (summary["steps"], summary["clips"]) == (STEPS, 8 * STEPS)
    assert summary["resumed_from"] in (3, 6, 9)
    records = read_records(run.path / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(2, STEPS + 1, 2))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("tats_ray").experiment_id
    (stored,) = client.search_runs([experiment])
    assert stored.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(stored.info.run_id, "loss")]
    assert steps == list(range(2, STEPS + 1, 2))
    assert max(record["rollout/staleness"] for record in records) <= 1
    # Measured at the end only; it belongs to the last record, here and in MLflow.
    measured = pytest.approx(summary["motion_enrichment"])
    assert records[-1]["enrichment/moving"] == measured
    assert stored.data.metrics["enrichment/moving"] == measured


def test_too_small_a_cluster_is_refused_with_the_numbers(synthetic, tmp_path):
    run = Run(synthetic, tmp_path, "small", *RAY, "cluster.cpus=1")
    process = run.start()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 2
    opening, *rest = output.splitlines()
    assert opening.endswith("on Ray, which is started here")
    assert not any("Ray" in line for line in rest)
    assert output.splitlines()[-1].startswith("error: the cluster has 1 CPUs, this run needs 2:")
