"""The probe as a user runs it behind a pre-training run: serial, without Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import mlflow
import pytest

from tats_ray.cli.evaluation import probe_main
from tats_ray.data.manifest import ManifestRow, read_manifest, write_manifest
from tests.runs.command import ROOT, Run


@pytest.fixture(scope="module")
def run(synthetic, tmp_path_factory):
    output = tmp_path_factory.mktemp("probed")
    trained = Run(synthetic, output, "base", "train.steps=2", "masking.system=tube")
    trained.finish()
    trained.train, trained.test = str(synthetic.train), str(synthetic.held_out)
    return trained


@pytest.fixture
def probe(run, capsys):
    """The command in this process: exit code, output, errors."""

    def call(*overrides):
        code = probe_main([f"probe.checkpoint={run.path}", *overrides])
        return code, *capsys.readouterr()

    return call


def _probe_alone(run, *overrides):
    """The command in a process of its own, which must not need Ray."""
    script = (
        "import sys; from tats_ray.cli.evaluation import probe_main; code = probe_main(); "
        "assert not {'ray', 'decord'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"probe.checkpoint={run.path}", *overrides],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def _report(run, name):
    return json.loads((run.path / "probes" / name / "probe.json").read_text())


def _features(run):
    """Name and time of change of each cache file."""
    return {file.name: file.stat().st_mtime_ns for file in (run.path / "features").glob("*")}


def test_a_probe_leaves_what_it_should_and_extracts_once(run, probe):
    settings = [f"probe.train={run.train}", f"probe.test={run.test}", "probe.views=2"]
    code, output, errors = _probe_alone(run, *settings, "probe.name=first")
    assert (code, errors) == (0, "")
    assert output.count("extracting features") == 2
    assert "top-1" in output and "zigzag" in output
    report = _report(run, "first")
    assert report["step"] == 2
    assert report["videos"] == {run.train: 20, run.test: 6}
    assert (report["missing_videos"], report["missing"]) == (0, {})
    for result in report["results"].values():
        assert 0 <= result["top1"] <= result["top5"] <= 1
        assert sum(map(sum, result["confusion"])) == 6
        assert len(result["classes"]) == 6
    folder = run.path / "probes" / "first"
    assert {file.name for file in folder.iterdir()} == {
        "probe.json", "config.yaml", "confusion_linear.png", "confusion_knn.png",
    }  # fmt: skip
    before = _features(run)
    assert len(before) == 2
    code, output, _ = probe(*settings, "probe.name=second", "probe.method=knn")
    assert code == 0
    assert "extracting" not in output
    assert output.count("are there from an earlier call") == 2
    assert _features(run) == before
    assert _report(run, "second")["results"] == {"knn": report["results"]["knn"]}
    _is_below_the_pretraining_run(run, report)


def _is_below_the_pretraining_run(run, report):
    client = mlflow.MlflowClient(f"sqlite:///{run.output}/mlflow.db")
    experiment = client.get_experiment_by_name("tats_ray").experiment_id
    stored = {found.info.run_name: found for found in client.search_runs([experiment])}
    assert set(stored) == {"base", "base-probe-first", "base-probe-second"}
    first = stored["base-probe-first"]
    assert first.info.status == "FINISHED"
    assert first.data.tags["mlflow.parentRunId"] == stored["base"].info.run_id
    assert first.data.params["probe.views"] == "2"
    linear = report["results"]["linear"]
    assert first.data.metrics["test/linear_top1"] == pytest.approx(linear["top1"])
    files = {file.path for file in client.list_artifacts(first.info.run_id, "probe")}
    assert "probe/confusion_linear.png" in files


def _folds(run, folder, group):
    """Three folds of the training videos; `group` names each video's group."""
    paths = read_manifest(run.train)["path"].to_pylist()
    lines = [f"{path},{row % 3},{group(row)}" for row, path in enumerate(paths)]
    file = folder / "folds.csv"
    file.write_text("\n".join(["path,fold,group", *lines]))
    return file


def test_folds_and_a_broken_video(run, probe, tmp_path):
    rows = [ManifestRow(**row) for row in read_manifest(run.train).to_pylist()]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    rows.append(ManifestRow(str(broken), rows[0].label, 12, 16.0, 32, 32))
    write_manifest(tmp_path / "set.parquet", rows)
    file = _folds(run, tmp_path, lambda row: f"g{row}")
    file.write_text(f"{file.read_text()}\nbroken.mp4,0,none")
    code, output, errors = probe(
        f"probe.train={tmp_path / 'set.parquet'}", f"probe.folds={file}", "probe.name=folds",
        "tracking.mlflow=false",
    )  # fmt: skip
    assert (code, errors) == (0, "")
    assert f"1 videos are missing; the first: {broken}" in output
    report = _report(run, "folds")
    assert list(report["missing"]) == [str(broken)]
    linear = report["results"]["linear"]
    assert [(split["name"], split["tested_on"]) for split in linear["splits"]] == [
        ("0", 7), ("1", 7), ("2", 6),
    ]  # fmt: skip
    assert linear["top1_deviation"] >= 0


def test_leaks_are_refused_before_anything_is_extracted(run, probe, tmp_path):
    before = _features(run)
    file = _folds(run, tmp_path, lambda row: f"g{row // 2}")
    code, output, errors = probe(f"probe.train={run.train}", f"probe.folds={file}")
    assert (code, output) == (2, "")
    assert errors.startswith("error: group 'g0' is in fold '0' and in fold '1'")
    assert errors.count("\n") == 1
    code, _, errors = probe(f"probe.train={run.train}", f"probe.test={run.train}")
    assert code == 2
    assert "is in probe.train and in probe.test" in errors
    assert _features(run) == before


def test_a_run_that_cannot_be_written_to_is_named(run, probe, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("features"))
    (copy / "features").write_text("in the way")
    code, _, errors = probe(
        f"probe.train={run.train}", f"probe.test={run.test}", f"probe.checkpoint={copy}"
    )
    assert code == 1
    assert errors.startswith(f"error: {copy / 'features'}: cannot be written (File exists); a file")


def test_a_poisoned_cache_is_an_error(run, probe):
    settings = [f"probe.train={run.train}", f"probe.test={run.test}", "probe.layer=1"]
    known = set(_features(run))
    assert probe(*settings, "tracking.mlflow=false", "probe.name=third")[0] == 0
    file = next(file for file in (run.path / "features").iterdir() if file.name not in known)
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    code, _, errors = probe(*settings, "tracking.mlflow=false", "probe.name=fourth")
    assert code == 1
    assert f"{file}: is damaged" in errors
    assert not (run.path / "probes" / "fourth").exists()
