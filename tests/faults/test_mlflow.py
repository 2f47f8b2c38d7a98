"""MLflow down, slow, broken or closed: training goes on, and nothing of its records is lost."""

from __future__ import annotations

import signal
import time

import mlflow
import pytest

from tats_ray.tracking.metrics_file import read_records
from tests.faults.mlflow_server import Proxy, Server
from tests.runs.command import STEPS, Run

pytestmark = pytest.mark.faults

WARNING = "MLflow is unreachable"
LATER = "run the same command again to upload the rest"
RECORDS = list(range(2, STEPS + 1, 2))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.close()


@pytest.fixture
def proxy(server):
    found = Proxy(server)
    yield found
    found.close()


def _run(synthetic, output, proxy, *more):
    """A run whose experiment is its own."""
    uri = f"http://alice:hunter2@127.0.0.1:{proxy.port}"
    return Run(
        synthetic, output, "run", f"tracking.uri={uri}", f"tracking.experiment={output.name}",
        "tracking.wait_seconds=1", "masking.system=tube", *more,
    )  # fmt: skip


def _steps(run):
    return [record["step"] for record in read_records(run.path / "metrics.jsonl")]


def _assert_synchronised(run, server, wanted, output):
    """One MLflow run with every record once, and all that goes with it."""
    client = mlflow.MlflowClient(server.url)
    experiment = client.get_experiment_by_name(run.output.name).experiment_id
    (stored,) = client.search_runs([experiment])
    assert stored.info.status == "FINISHED"
    assert run.summary()["mlflow_run_id"] == stored.info.run_id
    history = client.get_metric_history(stored.info.run_id, "loss")
    assert [point.step for point in history] == wanted
    assert stored.data.params["masking.system"] == "tube"
    files = {
        folder: client.list_artifacts(stored.info.run_id, folder)
        for folder in ("config", "pictures")
    }
    pictures = sorted(path.name for path in (run.path / "pictures").iterdir())
    assert [file.path for file in files["config"]] == ["config/config.yaml"]
    assert [file.path for file in files["pictures"]] == [f"pictures/{name}" for name in pictures]
    assert "hunter2" not in output
    assert "hunter2" not in str(stored.to_dictionary())
    for path in run.output.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


def _again(run, proxy):
    """The same command, with the server well again and time to take everything."""
    proxy.switch("pass")
    return run.finish("tracking.wait_seconds=200")


@pytest.mark.parametrize("fault", ["down", "401"])
def test_a_server_that_fails_from_the_start(fault, synthetic, server, proxy, tmp_path):
    run = _run(synthetic, tmp_path, proxy)
    proxy.switch(fault)
    output = run.finish()
    assert _steps(run) == RECORDS
    assert run.summary()["steps"] == STEPS
    assert output.count(WARNING) == 1
    assert output.count(LATER) == 1
    assert proxy.passed == []
    output += _again(run, proxy)
    assert "nothing to do" in output
    assert output.count(LATER) == 1
    _assert_synchronised(run, server, RECORDS, output)
    before = len(proxy.passed)
    assert run.finish().count("MLflow") == 0
    assert len(proxy.passed) == before, "what is synchronised is not asked for again"


@pytest.mark.parametrize("fault", ["500", "slow", "hold"])
def test_a_server_that_fails_on_the_way(fault, synthetic, server, proxy, tmp_path):
    """With `hold` it has not answered when the run is done: no step can have waited for it."""
    steps = 150
    run = _run(synthetic, tmp_path, proxy, f"train.steps={steps}", "checkpoint.interval=50")
    process = run.start()
    _until(lambda: "/api/2.0/mlflow/runs/log-batch" in proxy.passed, process)
    assert not (run.path / "summary.json").exists()
    proxy.switch(fault)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert proxy.held > 0 or fault != "hold"
    assert run.summary()["steps"] == steps
    assert _steps(run) == list(range(2, steps + 1, 2))
    assert (WARNING in output) == (fault == "500")
    assert output.count(LATER) == 1
    output += _again(run, proxy)
    _assert_synchronised(run, server, list(range(2, steps + 1, 2)), output)


def test_a_server_that_comes_back(synthetic, server, proxy, tmp_path):
    """It has records before the run is done, and everything when the command ends."""
    run = _run(synthetic, tmp_path, proxy, "train.steps=600", "checkpoint.interval=200")
    proxy.switch("500")
    process = run.start("tracking.wait_seconds=200")
    run.wait_for("metrics.jsonl", process)
    _until(lambda: len(_steps(run)) > 5, process)
    proxy.switch("pass")
    _until(lambda: proxy.passed.count("/api/2.0/mlflow/runs/log-batch") > 3, process)
    assert not (run.path / "summary.json").exists()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert output.count(WARNING) == 1
    assert output.count("MLflow is reachable again") == 1
    assert LATER not in output
    _assert_synchronised(run, server, list(range(2, 601, 2)), output)


def test_a_killed_run_catches_up_when_it_is_continued(synthetic, server, proxy, tmp_path):
    run = _run(synthetic, tmp_path, proxy)
    proxy.switch("down")
    process = run.start()
    run.wait_for("checkpoints/step_*", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    output = _again(run, proxy)
    assert "continuing" in output
    _assert_synchronised(run, server, RECORDS, output)


def _until(done, process):
    deadline = time.monotonic() + 200
    while not done():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
