"""The server itself is killed or frozen in the middle of a run, and later is there again."""

from __future__ import annotations

import contextlib

import mlflow
import pytest

from tats_ray.tracking.metrics_file import read_records
from tests.faults.mlflow_server import Server
from tests.processes import wait_for
from tests.runs.command import Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

STEPS = 150


@pytest.fixture
def server(tmp_path):
    found = Server(tmp_path)
    yield found
    found.close()


def _history(server, experiment):
    """Steps of the records that the server has."""
    client = mlflow.MlflowClient(server.url)
    with contextlib.suppress(AttributeError, ValueError):  # nothing yet
        found = client.get_experiment_by_name(experiment).experiment_id
        (stored,) = client.search_runs([found])
        return [point.step for point in client.get_metric_history(stored.info.run_id, "loss")]
    return []


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_server_that_is_lost_on_the_way(fault, synthetic, server, tmp_path):
    run = Run(
        synthetic, tmp_path, "run", f"tracking.uri={server.url}", "tracking.experiment=lost",
        "tracking.wait_seconds=1", "masking.system=tube", f"train.steps={STEPS}",
        "checkpoint.interval=50",
    )  # fmt: skip
    process = run.start()
    wait_for(lambda: _history(server, "lost"), "record", 200)
    assert not (run.path / "summary.json").exists(), "the run was over before"
    getattr(server, fault)()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert output.count("run the same command again to upload the rest") == 1
    wanted = list(range(2, STEPS + 1, 2))
    assert [record["step"] for record in read_records(run.path / "metrics.jsonl")] == wanted
    server.bring_back()
    run.finish("tracking.wait_seconds=200")
    assert _history(server, "lost") == wanted
