"""Records: averaged once, written once, and not twice after a crash."""

from __future__ import annotations

import json

import mlflow
import pytest

from tats_ray.tracking.console import RepeatedWarning, log_record
from tats_ray.tracking.metrics_file import MetricsFile, Record, read_records
from tats_ray.tracking.mlflow_run import MLflowRun, reason
from tats_ray.tracking.tracker import IntervalMean, Tracker, UntrackedRun
from tests.conftest import tiny_config


def test_an_interval_averages_what_its_steps_have():
    mean = IntervalMean(3)
    assert mean.add(1, {"loss": 1.0}) is None
    assert mean.add(2, {"loss": 2.0, "rare": 10.0}) is None
    assert mean.add(3, {"loss": 6.0}) == Record(3, {"loss": 3.0, "rare": 10.0})
    assert mean.close() is None
    mean.add(4, {"loss": 5.0})
    assert mean.close() == Record(4, {"loss": 5.0})


def test_intervals_end_at_multiples_after_a_resume():
    mean = IntervalMean(5)
    closed = [record.step for step in range(8, 21) if (record := mean.add(step, {"loss": 1.0}))]
    assert closed == [10, 15, 20]


def test_an_interval_goes_on_after_a_checkpoint():
    whole, part = IntervalMean(4), IntervalMean(4)
    for step in (1, 2, 3):
        whole.add(step, {"loss": step})
    for step in (1, 2):
        part.add(step, {"loss": step})
    resumed = IntervalMean(4, json.loads(json.dumps(part.begun)))
    resumed.add(3, {"loss": 3})
    assert resumed.add(4, {"loss": 4}) == whole.add(4, {"loss": 4})


def test_resuming_drops_records_behind_the_checkpoint_and_half_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for step in (2, 4, 6):
        file.write(Record(step, {"loss": step / 10}))
    file.close()
    with path.open("a") as half:
        half.write('{"step": 8, "lo')
    resumed = MetricsFile(path, 4)
    assert (resumed.first_loss, resumed.last_loss) == (0.2, 0.4)
    resumed.write(Record(6, {"loss": 0.9}))
    resumed.close()
    assert [(line["step"], line["loss"]) for line in read_records(path)] == [
        (2, 0.2), (4, 0.4), (6, 0.9),
    ]  # fmt: skip


@pytest.fixture
def config(tmp_path):
    return tiny_config(f"run.output_dir={tmp_path}", "tracking.wait_seconds=200")


def _file_of(path, steps, loss):
    file = MetricsFile(path, 0)
    for step in steps:
        file.write(Record(step, {"loss": loss, "ppo/kl": 0.1}))
    file.close()
    return path


def test_mlflow_continues_the_same_run_without_doubling_steps(config, tmp_path):
    run = MLflowRun(config, "k", records=_file_of(tmp_path / "one.jsonl", (2, 4, 6), 0.5))
    assert run.finish("FAILED")
    # As after a crash; the checkpoint was at step 2.
    again = MLflowRun(config, "k", records=_file_of(tmp_path / "other.jsonl", (4, 6, 8), 0.4))
    assert again.finish("FINISHED")
    assert again.run_id == run.run_id
    client = mlflow.MlflowClient(config.tracking_uri)
    experiment = client.get_experiment_by_name("tats_ray")
    (stored,) = client.search_runs([experiment.experiment_id])
    assert stored.info.status == "FINISHED"
    assert stored.data.params["masking.sampler.width"] == "16"
    history = client.get_metric_history(stored.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [
        (2, 0.5), (4, 0.5), (6, 0.5), (8, 0.4),
    ]  # fmt: skip


def test_points_whose_call_failed_are_stored_once(config, tmp_path, monkeypatch):
    """The server did what the client has given up waiting for: the points come again. There are
    more of them than MLflow takes at once."""
    sent, log_batch = [], mlflow.MlflowClient.log_batch

    def slow(client, run_id, metrics=(), **others):
        log_batch(client, run_id, metrics, **others)
        sent.append(len(metrics))
        if metrics and sent.count(len(metrics)) == 1:
            raise OSError("timed out")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", slow)
    file = MetricsFile(tmp_path / "m.jsonl", 0)
    for step in range(1, 251):
        file.write(Record(step, {"loss": 1 / step} | {f"x{i}": float(i) for i in range(5)}))
    run = MLflowRun(config, "k", records=tmp_path / "m.jsonl")
    run.log_result(250, {"top1": 0.5})
    assert run.finish("FINISHED")
    assert sent.count(1200) == sent.count(300) == sent.count(1) == 2
    client = mlflow.MlflowClient(config.tracking_uri)
    for name in ("loss", "x4"):
        history = client.get_metric_history(run.run_id, name)
        assert [point.step for point in history] == list(range(1, 251))
    assert len(client.get_metric_history(run.run_id, "test/top1")) == 1


def test_records_come_from_the_file_whatever_was_missed(config, tmp_path):
    """Lines from before the MLflow run, a line that is half written, and pictures of before."""
    path, pictures = tmp_path / "metrics.jsonl", tmp_path / "pictures"
    file = MetricsFile(path, 0)
    for step in (2, 4):
        file.write(Record(step, {"loss": step / 10, "lr": 1.0}))
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"a")
    found = []
    run = MLflowRun(config, "k", records=path, found=found.append)
    run.log_folder(pictures, "pictures")
    file.write(Record(6, {"loss": 0.6, "lr": 1.0}))
    with path.open("a") as half:
        half.write('{"step": 8, "lo')
        half.flush()
        assert run.finish("FAILED")
    assert found == [run.run_id]
    again = MLflowRun(config, "k", records=path)  # a crash before the id was kept
    assert again.finish("FINISHED")
    assert again.run_id == run.run_id
    client = mlflow.MlflowClient(config.tracking_uri)
    history = client.get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(2, 0.2), (4, 0.4), (6, 0.6)]
    assert [file.path for file in client.list_artifacts(run.run_id, "pictures")] == [
        "pictures/a.png"
    ]


def test_the_queue_is_bounded_and_tells_what_it_lost(tmp_path, capsys):
    config = tiny_config(
        f"run.output_dir={tmp_path}", "tracking.wait_seconds=0",
        "tracking.uri=http://user:hunter2@127.0.0.1:9",
    )  # fmt: skip
    run = MLflowRun(config)
    for _ in range(3000):
        run.log_file(tmp_path / "x", "pictures")
    assert len(run._calls) == 1000
    assert not run.finish("FINISHED")
    assert run.run_id is None
    printed = capsys.readouterr().out
    assert "same command again" in printed
    assert "hunter2" not in printed


def test_one_warning_a_minute(capsys):
    now = 0.0
    warning = RepeatedWarning(lambda: now)
    for now in range(0, 150, 5):  # noqa: B007
        warning.log("refused")
    assert capsys.readouterr().out.count("refused") == 3
    warning.end("well")
    warning.end("well")
    assert capsys.readouterr().out == "well\n"


def test_reasons_hold_no_credentials(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret-token")
    error = OSError("GET http://me:p@ss@host/api?token=abc with s3cret-token refused\nmore")
    assert reason(error) == "OSError: GET http://host/api?token=*** with *** refused"


def test_an_address_that_looks_like_the_password_is_saved_whole(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "mlflow")
    config = tiny_config("tracking.uri=https://u:mlflow@mlflow.example.org")
    assert config.model_dump()["tracking"]["uri"] == "https://mlflow.example.org"


def test_artifacts_stay_in_the_output_directory(config, tmp_path):
    run = MLflowRun(config)
    (tmp_path / "note.txt").write_text("x")
    run.log_file(tmp_path / "note.txt", "config")
    assert run.finish("FINISHED")
    assert list(tmp_path.glob("mlflow_artifacts/**/note.txt"))
    assert config.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_artifacts_of_another_database_do_not_go_where_the_command_runs(tmp_path, monkeypatch):
    here, output = tmp_path / "here", tmp_path / "output"
    here.mkdir()
    monkeypatch.chdir(here)
    config = tiny_config(
        f"run.output_dir={output}", f"tracking.uri=sqlite:///{tmp_path}/shared/m.db"
    )
    run = MLflowRun(config)
    (tmp_path / "note.txt").write_text("x")
    run.log_file(tmp_path / "note.txt", "config")
    assert run.finish("FINISHED")
    assert list(output.glob("mlflow_artifacts/**/note.txt"))
    assert not list(here.iterdir())


def test_the_tracker_adds_rates_and_prints_one_line(tmp_path, capsys):
    config = tiny_config(f"run.output_dir={tmp_path}", "tracking.mlflow=false")
    tracker = Tracker(config, MetricsFile(tmp_path / "m.jsonl", 0), UntrackedRun(), {})
    for step in (1, 2):
        tracker.step(step, {"loss": 0.25, "time/step_seconds": 0.5, "time/data_seconds": 0.1})
    tracker.close("FINISHED")
    (line,) = read_records(tmp_path / "m.jsonl")
    assert line["time/clips_per_second"] == pytest.approx(16)
    assert line["time/data_share"] == pytest.approx(0.2)
    printed = capsys.readouterr().out.strip().splitlines()
    assert len(printed) == 1
    assert printed[0].startswith("step  2/12  loss 0.2500")


@pytest.mark.parametrize(("ratio", "shown"), [(1.0, False), (1.3, True)])
def test_the_line_has_no_constants(capsys, ratio, shown):
    """With one update per draw the ratio is 1, the KL divergence 0 and nothing is clipped."""
    metrics = {"loss": 0.5, "ppo/kl": 0.01, "ppo/clip_fraction": 0.1, "ppo/ratio_max": ratio}
    log_record(Record(3, metrics), 10)
    line = capsys.readouterr().out
    assert line.startswith("step  3/10  loss 0.5000")
    assert ("kl 1.0e-02  clip 10%" in line) == shown
