"""jobs/probe.py and jobs/evaluate.py on weights that no run here has left."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from tats_ray.cli.evaluation import evaluate_main, probe_main
from tats_ray.config.probe import load_probe_config
from tats_ray.data.manifest import read_manifest
from tats_ray.errors import ConfigError
from tests.exports import (
    CLASSES,
    exported,
    finetuning_run,
    official_classifier,
    pretraining_run,
    save_official,
)

GEOMETRY = ["data.frames=8", "data.size=32", "data.stored_height=32", "data.stored_width=32",
            "data.stride=1"]  # fmt: skip
SIZES = ["model.size=tiny", "model.width=24", "model.depth=2", "model.heads=2"]
SERIAL = ["cluster.mode=serial", "tracking.mlflow=false"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _manifest(synthetic, folder, labels):
    """The held-out videos with other labels, in turn."""
    table = read_manifest(synthetic.held_out)
    names = [labels[row % len(labels)] for row in range(table.num_rows)]
    at = table.column_names.index("label")
    pq.write_table(table.set_column(at, "label", [names]), folder / "test.parquet")
    return str(folder / "test.parquet")


def _features(folder):
    """Those of the training videos."""
    files = [load_file(file) for file in (folder / "features").glob("*.safetensors")]
    return next(file["features"] for file in files if len(file["features"]) == 20)


def _probe(synthetic, source, *more):
    words = [f"probe.checkpoint={source}", f"probe.train={synthetic.train}",
             f"probe.test={synthetic.held_out}", "probe.method=knn", *SERIAL]  # fmt: skip
    return probe_main([*words, *more])


def test_a_probe_gives_the_same_numbers_for_a_run_and_its_exports(synthetic, place):
    pretraining_run(place / "run")
    assert _probe(synthetic, "run", *GEOMETRY) == 0
    wanted = json.loads((place / "run/probes/default/probe.json").read_text())
    for form in ("huggingface", "safetensors"):
        exported(place / "run", place / form, form)
        if form == "huggingface":  # as it comes from elsewhere
            (place / form / "config.yaml").unlink()
        assert _probe(synthetic, form, *GEOMETRY) == 0
        got = json.loads((place / "runs" / form / "probes/default/probe.json").read_text())
        assert got["results"] == wanted["results"]


def test_a_fine_tuned_encoder_is_probed_behind_a_block(synthetic, place, capsys):
    finetuning_run(place / "tuned")
    exported(place / "tuned", place / "hf", "huggingface")
    save_official(place, official_classifier()[1])
    for source, sizes in (("tuned", []), ("hf", []), ("official.pth", SIZES)):
        assert _probe(synthetic, source, *GEOMETRY, *sizes) == 1
        assert (
            "has no last norm, as behind fine-tuning; set probe.layer=2" in capsys.readouterr().err
        )
        assert _probe(synthetic, source, *GEOMETRY, *sizes, "probe.layer=2") == 0
    first, *others = (_features(place / folder) for folder in ("tuned", "runs/hf", "runs/official"))
    assert first.shape == (20, 24) and all(np.array_equal(first, other) for other in others)


def test_sizes_are_for_official_files(place):
    pretraining_run(place / "run")
    exported(place / "run", place / "hf", "huggingface")
    given = ["probe.checkpoint=hf", "probe.train=a", "probe.test=b"]
    with pytest.raises(ConfigError, match="tells its own; model is for official files"):
        load_probe_config(None, [*given, "model.size=small"])
    config = load_probe_config(None, given)
    assert config.run.model.width == 24 and config.directory == place / "runs" / "hf"


def test_a_classifier_is_evaluated_wherever_it_comes_from(synthetic, place, capsys):
    finetuning_run(place / "tuned", *SERIAL)
    manifest = _manifest(synthetic, place, CLASSES)
    words = [manifest, *SERIAL, *GEOMETRY, "views.temporal=2", "train.precision=fp32"]
    assert evaluate_main(["tuned", *words]) == 0
    wanted = json.loads((place / "tuned/evaluation/test.json").read_text())
    for form in ("huggingface", "safetensors"):
        exported(place / "tuned", place / form, form)
        assert evaluate_main([form, *words]) == 0
        got = json.loads((place / "runs" / form / "evaluation/test.json").read_text())
        assert got == wanted
    capsys.readouterr()
    assert evaluate_main(["huggingface", *SERIAL]) == 2
    assert "has no test manifest of its own" in capsys.readouterr().err


def test_an_official_classifier_is_told_its_classes(synthetic, place, capsys):
    """The same weights as the run's, without names."""
    finetuning_run(place / "tuned", *SERIAL)
    save_official(place, official_classifier()[1])
    manifest = _manifest(synthetic, place, CLASSES)
    words = [manifest, *SERIAL, *GEOMETRY, *SIZES, "views.temporal=2", "train.precision=fp32"]
    assert evaluate_main(["official.pth", *words]) == 2
    assert "none of the 3 classes" in capsys.readouterr().err
    (place / "classes.txt").write_text("\n".join(CLASSES))
    assert evaluate_main(["official.pth", "--classes", "classes.txt", *words]) == 0
    got = json.loads((place / "runs/official/evaluation/test.json").read_text())
    _manifest(synthetic, place, ["0", "1", "2"])
    assert evaluate_main(["official.pth", *words]) == 0
    numbered = json.loads((place / "runs/official/evaluation/test.json").read_text())
    assert np.array_equal(numbered["confusion"], got["confusion"])
    (place / "classes.txt").write_text("left\nright")
    assert evaluate_main(["official.pth", "--classes", "classes.txt", *words]) == 2
    assert "must name the 3 classes" in capsys.readouterr().err


def test_what_is_no_classifier_is_refused(place, capsys):
    pretraining_run(place / "run")
    for form in ("huggingface", "safetensors"):
        exported(place / "run", place / form, form)
        assert evaluate_main([form, "test.parquet", *SERIAL]) == 1
        assert "holds no classifier; fine-tune it first" in capsys.readouterr().err
    torch.save({"model": {"head.bias": torch.ones(3)}}, "odd.pth")
    assert evaluate_main(["odd.pth", "test.parquet", *SERIAL]) != 0
    assert capsys.readouterr().err.count("\n") == 1
