"""Whole serial fine-tuning runs in this process: they learn, and a restart changes nothing."""

from __future__ import annotations

import json
import signal

import mlflow
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from tats_ray.cli.evaluation import evaluate_main
from tats_ray.controller.finetune import finetune
from tats_ray.controller.in_process import InProcessExecutor
from tats_ray.errors import CheckpointError, ManifestError, RunDirectoryError
from tats_ray.tracking.metrics_file import read_records
from tests.finetuning import PLAIN, finetune_config

STEPS = 8


@pytest.fixture(autouse=True)
def handlers():
    """A run takes the signals over; tests give them back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def _config(synthetic, output, name, *overrides):
    return finetune_config(
        f"run.output_dir={output}", f"run.name={name}", f"data.manifest={synthetic.train}",
        f"data.test_manifest={synthetic.held_out}", *overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(synthetic, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    finetune(_config(synthetic, output, "run"), must_resume=False)
    return output / "run"


def _weights(run):
    folder = run / "checkpoints" / f"step_{STEPS:08d}"
    files = ("classifier", "classifier_optimizer")
    return {f"{f}/{k}": v for f in files for k, v in load_file(folder / f"{f}.safetensors").items()}


def test_a_run_leaves_what_it_should(whole, synthetic):
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["steps"], summary["clips"], summary["classes"]) == (STEPS, 8 * STEPS, 6)
    assert (summary["test_videos"], summary["test_videos_missing"]) == (6, 0)
    classes = json.loads((whole / "checkpoints" / f"step_{STEPS:08d}" / "classes.json").read_text())
    assert classes == ["circle", "linear", "oscillate", "spin", "stop_and_go", "zigzag"]
    result = json.loads((whole / "evaluation" / "held_out.json").read_text())
    assert result["top1"] == summary["top1"]
    assert list(result["classes"]) == classes
    assert (whole / "evaluation" / "held_out.png").exists()
    records = read_records(whole / "metrics.jsonl")
    assert [record["step"] for record in records] == [2, 4, 6, 8]


def test_killed_and_continued_equals_uninterrupted(whole, synthetic, tmp_path, monkeypatch):
    """Augmentation, erasing, mixing and drop path are on; the fault comes between checkpoints."""
    config = _config(synthetic, tmp_path, "run")
    step = InProcessExecutor.train

    def fail(self, number, *arguments, **keywords):
        if number == 4:
            raise KeyboardInterrupt
        step(self, number, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(InProcessExecutor, "train", fail)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, must_resume=False)
    assert not (tmp_path / "run" / "summary.json").exists()
    summary = finetune(config, must_resume=True)
    assert (summary["steps"], summary["resumed_from"]) == (STEPS, 3)
    wanted, got = _weights(whole), _weights(tmp_path / "run")
    assert wanted.keys() == got.keys()
    assert all(np.array_equal(wanted[key], got[key]) for key in wanted)
    losses = [
        [(r["step"], r["loss"]) for r in read_records(run / "metrics.jsonl")]
        for run in (whole, tmp_path / "run")
    ]
    assert losses[0] == losses[1]
    before = (tmp_path / "run" / "summary.json").read_bytes()
    finetune(config, must_resume=False)
    assert (tmp_path / "run" / "summary.json").read_bytes() == before, "nothing to do"


def test_an_interrupted_evaluation_is_made_up_for(whole, synthetic, tmp_path):
    done = json.loads((whole / "summary.json").read_text())
    metrics = ("top1", "top5", "mean_class_accuracy", "test_videos", "test_videos_missing")
    try:
        trained = {name: value for name, value in done.items() if name not in metrics}
        (whole / "summary.json").write_text(json.dumps(trained))
        config = _config(synthetic, whole.parent, "run")
        assert finetune(config, must_resume=False) == done
    finally:
        (whole / "summary.json").write_text(json.dumps(done))


def test_evaluate_command_repeats_the_metrics_and_takes_other_views(whole, capsys):
    wanted = json.loads((whole / "evaluation" / "held_out.json").read_text())
    assert evaluate_main([str(whole)]) == 0
    assert json.loads((whole / "evaluation" / "held_out.json").read_text()) == wanted
    assert evaluate_main([str(whole), "views.temporal=1", "views.spatial=1"]) == 0
    assert evaluate_main([str(whole), "views.spatial=2"]) == 2
    assert "views.spatial" in capsys.readouterr().err
    assert evaluate_main([str(whole.parent)]) == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_the_loss_falls(synthetic, tmp_path):
    config = _config(
        synthetic, tmp_path, "learns", *PLAIN, "train.steps=15", "train.base_lr=0.3",
        "train.batch_size=20", "data.repeats=1", "train.layer_decay=1.0",
        "tracking.log_interval=1", "checkpoint.interval=15", "views.temporal=1",
        "views.spatial=1",
    )  # fmt: skip
    summary = finetune(config, must_resume=False)
    assert summary["loss_first"] == pytest.approx(np.log(6), abs=0.02), "an untrained guess"
    assert summary["loss_last"] < 0.6 * summary["loss_first"]


def test_faults_show_before_anything_is_trained(synthetic, tmp_path):
    with pytest.raises(CheckpointError, match=r"train.initial_weights: .*nowhere"):
        finetune(
            _config(synthetic, tmp_path, "a", f"train.initial_weights={tmp_path}/nowhere"),
            must_resume=False,
        )
    with pytest.raises(RunDirectoryError, match="no run to resume"):
        finetune(_config(synthetic, tmp_path, "b"), must_resume=True)
    with pytest.raises(ManifestError, match="no such manifest"):
        finetune(
            _config(synthetic, tmp_path, "c", f"data.test_manifest={tmp_path}/no.parquet"),
            must_resume=False,
        )


def test_another_protocol_is_another_run(whole, synthetic):
    config = _config(synthetic, whole.parent, "run", "data.augment.mixup=0.5")
    with pytest.raises(RunDirectoryError, match=r"data.augment.mixup=0.8, not 0.5"):
        finetune(config, must_resume=False)


def test_the_stored_configuration_is_complete(whole):
    stored = yaml.safe_load((whole / "config.yaml").read_text())
    assert stored["classifier"]["drop_path"] == 0.1
    assert stored["data"]["augment"]["rand_augment"] == "rand-m7-n4-mstd0.5-inc1"


def test_mlflow_has_the_run_and_the_test_metrics(synthetic, tmp_path):
    config = _config(
        synthetic, tmp_path, "tracked", "train.steps=2", "tracking.mlflow=true",
        "views.temporal=1", "views.spatial=1",
    )  # fmt: skip
    summary = finetune(config, must_resume=False)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(summary["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/top1"] == summary["top1"]
    assert run.data.params["classifier.drop_path"] == "0.1"
    files = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
    assert files == {"evaluation/held_out.json", "evaluation/held_out.png"}
