"""What a run says and keeps where it ends with a fault."""

from __future__ import annotations

import pytest

from tats_ray.config.compare import CompareConfig
from tats_ray.config.load import read_yaml, validate_as
from tats_ray.controller.executor import Completed
from tats_ray.controller.pretrain import pretrain
from tats_ray.controller.records import RunRecords
from tats_ray.controller.run import _iterate
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.controller.signals import StopRequest
from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.errors import ConfigError, NonFiniteError
from tats_ray.tracking.metrics_file import MetricsFile, read_records
from tats_ray.tracking.tracker import Tracker, UntrackedRun
from tats_ray.training.checkpoint import Progress
from tats_ray.training.reports import StepReport
from tests.conftest import tiny_config
from tests.iterations import Training, pretraining


class _FaultyExecutor:
    """Has done a step when the next one cannot be begun."""

    def __init__(self, state):
        self._state = state

    def next_batch(self, step):
        raise NonFiniteError("step 2: diverged")

    def completed(self):
        return Completed([StepReport(1, {"loss": 1.0, "gradient_norm": 1.0})], [self._state])


def test_a_checkpoint_that_cannot_be_written_beside_another_fault_is_told(
    synthetic, tmp_path, capsys
):
    """The fault itself stays the run's error; the record of the step is kept."""
    config = tiny_config(
        f"run.output_dir={tmp_path}", "checkpoint.interval=1", "tracking.log_interval=1"
    )
    directory = RunDirectory(config)
    directory.open(synthetic.train, must_exist=False)
    directory.checkpoints.write_text("a file in the way of the folder")
    tracker = Tracker(config, MetricsFile(directory.metrics, 0), UntrackedRun(), {})
    task, progress = pretraining(config, synthetic.train), Progress(0, 0, Cursor(), 0)
    records = RunRecords(task, directory, tracker, None, progress, dict)
    records.begin(0, ClipBatch(0, (), Cursor(2, 0)))
    executor = _FaultyExecutor(Training(config).after(1))
    with pytest.raises(NonFiniteError, match="step 2: diverged"):
        _iterate(task, executor, records, StopRequest(), directory)
    tracker.close("FAILED")
    directory.close()
    said = capsys.readouterr().out
    assert f"could not be stored: {directory.checkpoints}" in said
    assert [record["step"] for record in read_records(directory.metrics)] == [1]


def test_epochs_decide_the_steps(synthetic, tmp_path):
    """Twenty videos, two clips of each per epoch: 1.3 epochs are 52 clips."""
    config = tiny_config(
        f"run.output_dir={tmp_path}", f"data.manifest={synthetic.train}", "data.repeats=2",
        "train.epochs=1.3", "train.steps=1", "tracking.mlflow=false",
    )  # fmt: skip
    assert pretrain(config, must_resume=False)["steps"] == 7
    stored = read_yaml(tmp_path / "test" / "config.yaml")
    assert (stored["train"]["epochs"], stored["train"]["steps"]) == (1.3, 7)
    assert pretrain(config, must_resume=True)["steps"] == 7, "nothing is left to do"


def test_a_comparison_counts_in_steps():
    tree = {
        "run": {"name": "a"}, "pretrain": {"train": {"epochs": 2}}, "probe": None,
        "compare": {"arms": {"random": ["masking.system=random"]}, "ratios": [0.9], "seeds": [0],
                    "references": ["random"], "metric": "enrichment_ratio",
                    "execution": "in_turn"},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"set pretrain\.train\.steps"):
        validate_as(CompareConfig, tree)
