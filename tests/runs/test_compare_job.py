"""The comparison as a user runs it: whole, killed and continued, and with a trial that fails."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time

import mlflow
import pytest
import yaml

from tats_ray.config.load import load_as
from tats_ray.config.tree import Config
from tests.conftest import TINY
from tests.runs.command import ROOT

pytestmark = pytest.mark.slow

_LAST = "tats-0.75-1"


def _tree(synthetic, output, **changes) -> dict:
    base = load_as(Config, None, TINY).model_dump(exclude={"run", "masking"})
    base["data"] |= {"manifest": str(synthetic.train), "held_out_manifest": str(synthetic.held_out)}
    base["masking"] = {"sampler": {"width": 16, "heads": 2}}
    base["tracking"] |= {"enrichment_interval": 4}
    base["checkpoint"] = {"interval": 3}
    probe = {"train": str(synthetic.train), "test": str(synthetic.held_out), "l2": [0.1]}
    compare = {
        "arms": {"random": ["masking.system=random"], "tats": ["masking.system=tats"]},
        "ratios": [0.75],
        "seeds": [0, 1],
        "references": ["random"],
        "execution": "in_turn",
    } | changes.pop("compare", {})
    return {
        "run": {"name": "study", "output_dir": str(output)},
        "compare": compare,
        "pretrain": base,
        "probe": probe,
    } | changes


def _start(tree: dict, output) -> subprocess.Popen:
    file = output / "study.yaml"
    file.write_text(yaml.safe_dump(tree))
    return subprocess.Popen(
        [sys.executable, "jobs/compare.py", "--config", str(file)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )  # fmt: skip


def _finish(tree: dict, output, code: int = 0) -> str:
    process = _start(tree, output)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == code, text
    return text


def _rows(output) -> dict[str, dict[str, str]]:
    """`results.csv` by trial, without what a clock measured."""
    with (output / "study" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        f"{row['arm']}-{row['ratio']}-{row['seed']}": {
            name: value for name, value in row.items() if name != "seconds_per_step"
        }
        for row in rows
    }


@pytest.fixture(scope="module")
def whole(synthetic, tmp_path_factory):
    output = tmp_path_factory.mktemp("compared")
    _finish(_tree(synthetic, output), output)
    return output


def test_the_report_has_every_trial(whole):
    rows = _rows(whole)
    assert set(rows) == {f"{arm}-0.75-{seed}" for arm in ("random", "tats") for seed in (0, 1)}
    for name, row in rows.items():
        probed = json.loads(
            (whole / "study" / "trials" / name / "probes" / "default" / "probe.json").read_text()
        )
        assert float(row["linear"]) == pytest.approx(probed["results"]["linear"]["top1"], abs=1e-5)
        assert row["steps"] == "12"
    tables = (whole / "study" / "results.md").read_text()
    assert "linear - random" in tables
    for picture in ("accuracy_by_ratio", "accuracy_by_cost", "enrichment"):
        assert (whole / "study" / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"


def test_mlflow_shows_trials_below_the_study_and_probes_below_trials(whole):
    client = mlflow.MlflowClient(f"sqlite:///{whole}/mlflow.db")
    runs = {run.info.run_name: run for run in client.search_runs(["1"])}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
    study = runs["study"].info.run_id
    assert parents["study"] is None
    assert parents[_LAST] == study
    assert parents[f"{_LAST}-probe-default"] == runs[_LAST].info.run_id
    assert runs["study"].info.status == "FINISHED"
    assert client.list_artifacts(study, "comparison")


def test_the_same_command_again_has_nothing_to_run(whole, synthetic):
    before = _rows(whole)
    assert "4 trials, 0 of them to run" in _finish(_tree(synthetic, whole), whole)
    assert _rows(whole) == before


def test_a_killed_comparison_continues_to_the_same_metrics(whole, synthetic, tmp_path):
    tree = _tree(synthetic, tmp_path)
    process = _start(tree, tmp_path)
    trial = tmp_path / "study" / "trials" / "tats-0.75-0"
    deadline = time.monotonic() + 200
    while not list(trial.glob("checkpoints/step_*[69]")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (trial / "result.json").exists()
    text = _finish(tree, tmp_path)
    assert "4 trials, 3 of them to run" in text
    assert json.loads((trial / "summary.json").read_text())["resumed_from"] >= 6
    assert _rows(tmp_path) == _rows(whole)


def test_a_failing_trial_is_named_and_the_others_go_on(synthetic, tmp_path):
    arms = {"random": ["masking.system=random"], "odd": ["data.held_out_manifest=nowhere"]}
    tree = _tree(synthetic, tmp_path, compare={"arms": arms, "seeds": [0]})
    tree["tracking"] = {"mlflow": False}
    text = _finish(tree, tmp_path, code=1)
    assert "1 of 2 trials failed, the first is odd-0.75-0: " in text
    assert "nowhere" in text
    assert set(_rows(tmp_path)) == {"random-0.75-0"}


def test_faults_of_an_arm_are_found_before_any_trial(synthetic, tmp_path):
    arms = {"random": ["masking.system=random"], "odd": ["train.initial_weights=nowhere"]}
    text = _finish(_tree(synthetic, tmp_path, compare={"arms": arms}), tmp_path, code=1)
    assert text.startswith("error: train.initial_weights: nowhere: cannot be read")
    assert not (tmp_path / "study" / "trials").exists()


def test_equal_operations_give_a_costly_system_fewer_steps(synthetic, tmp_path):
    tree = _tree(synthetic, tmp_path, compare={"budget": "flops", "seeds": [0]})
    tree["tracking"] = {"mlflow": False}
    _finish(tree, tmp_path)
    rows = _rows(tmp_path)
    steps = {name: int(row["steps"]) for name, row in rows.items()}
    assert steps["random-0.75-0"] == 12
    assert 0 < steps["tats-0.75-0"] < 12
    spent = [steps[name] * float(row["gflops_per_step"]) for name, row in rows.items()]
    assert max(spent) / min(spent) < 1.2
