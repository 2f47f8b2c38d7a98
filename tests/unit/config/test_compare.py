"""Comparisons: which trials there are, what each part reads, and faults before anything runs."""

from __future__ import annotations

import pytest

from tats_ray.config.compare import CompareConfig
from tats_ray.config.load import validate_as
from tats_ray.errors import ConfigError


def _tree(**changes) -> dict:
    compare = {
        "arms": {"random": ["masking.system=random"], "short": ["train.steps=7", "rl.epochs=2"]},
        "ratios": [0.75, 0.9],
        "seeds": [3, 4],
        "references": ["random"],
    } | changes.pop("compare", {})
    return {
        "run": {"name": "study", "output_dir": "somewhere"},
        "compare": compare,
        "pretrain": {"cluster": {"mode": "serial"}, "train": {"steps": 20}},
    } | changes


def _load(**changes) -> CompareConfig:
    return validate_as(CompareConfig, _tree(**changes))


def test_every_arm_meets_every_ratio_and_seed():
    names = [trial.name for trial in _load().trials()]
    assert names == [
        "random-0.75-3", "short-0.75-3", "random-0.9-3", "short-0.9-3",
        "random-0.75-4", "short-0.75-4", "random-0.9-4", "short-0.9-4",
    ]  # fmt: skip


def test_a_trial_is_the_base_with_the_arms_overrides_its_ratio_and_seed():
    config = _load()
    (run,) = [
        config.pretrain_config(trial, "/runs")
        for trial in config.trials()
        if trial.name == "short-0.9-4"
    ]
    assert (run.run.name, run.run.seed, run.run.output_dir) == ("short-0.9-4", 4, "/runs")
    assert (run.masking.ratio, run.train.steps, run.rl.epochs) == (0.9, 7, 2)
    assert "rl" not in config.pretrain  # one arm's overrides do not leak into the others
    assert config.pretrain_config(config.trials()[0], "/runs").rl.epochs == 1


def test_an_arm_of_another_system_leaves_the_bases_own_settings_behind(tmp_path):
    """Also where the study's own section names another system than the file that it begins with."""
    base = tmp_path / "base.yaml"
    base.write_text("masking: {ratio: 0.7, sampler: {width: 96, heads: 2}}\n")
    arms = {"base": [], "mgm": ["masking.system=mgm", "masking.smoothing=0.1"]}
    compare = {"arms": arms, "references": ["base"], "ratios": [0.75], "seeds": [0]}
    serial = {"cluster": {"mode": "serial"}}
    config = _load(compare=compare, base=str(base), pretrain=serial)
    first, second = (config.pretrain_config(trial, "/runs").masking for trial in config.trials())
    assert (first.sampler.width, second.smoothing, second.ratio) == (96, 0.1, 0.75)
    changed = serial | {"masking": {"system": "trackmae"}}
    config = _load(compare=compare, base=str(base), pretrain=changed)
    assert config.pretrain_config(config.trials()[0], "/runs").masking.motion_ratio == 0.5


def test_given_steps_win_over_the_arms():
    config = _load()
    assert config.pretrain_config(config.trials()[1], "/runs", steps=11).train.steps == 11


def test_a_probe_reads_the_generated_set_unless_it_names_manifests():
    assert _load().probe_tree("r", "a", "b") == {
        "probe": {"checkpoint": "r", "train": "a", "test": "b"}
    }
    named = _load(probe={"train": "x.parquet", "folds": "f.csv", "data": {"stride": 2}})
    assert named.probe_tree("r", "a", "b") == {
        "data": {"stride": 2},
        "probe": {"checkpoint": "r", "train": "x.parquet", "folds": "f.csv"},
    }


def test_several_probes_share_what_probe_says():
    words = {"train": "w.parquet", "folds": "w.csv", "data": {"stride": 1}}
    config = _load(
        probe={"method": "linear", "data": {"size": 64}}, probes={"words": words, "plain": {}}
    )
    assert config.probe_names() == ["words", "plain"]
    assert config.probe_tree("r", "a", "b", "words") == {
        "data": {"size": 64, "stride": 1},
        "probe": {
            "method": "linear", "checkpoint": "r", "train": "w.parquet", "folds": "w.csv",
            "name": "words",
        },
    }  # fmt: skip
    assert config.probe_tree("r", "a", "b", "plain")["probe"]["test"] == "b"
    assert _load().probe_names() == [None]


def test_an_equal_arm_has_seeds_of_its_own():
    arms = {"random": ["masking.system=random"], "again": ["masking.system=random"]}
    config = _load(compare={"arms": arms, "seed_offsets": {"again": 100}})
    seeds = [config.pretrain_config(trial, "/runs").run.seed for trial in config.trials()]
    assert seeds == [3, 103, 3, 103, 4, 104, 4, 104]


def test_fine_tuning_takes_over_data_and_model_and_starts_from_the_trial():
    config = _load(
        pretrain={"cluster": {"mode": "serial"}, "data": {"size": 64, "stored_height": 70}},
        finetune={"data": {"stored_height": 80}, "train": {"steps": 5}},
    )
    tuned = config.finetune_config(config.trials()[0], "/runs")
    assert (tuned.data.size, tuned.data.stored_height, tuned.train.steps) == (64, 80, 5)
    assert tuned.train.initial_weights == "/runs/random-0.75-3"
    assert tuned.run.name == "random-0.75-3-finetune"
    assert tuned.cluster.mode == "serial"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare": {"references": ["tube"]}}, "'tube' is not an arm"),
        ({"compare": {"seed_offsets": {"tube": 1}}}, "seed_offsets: 'tube' is not an arm"),
        ({"probes": {"a": {"neighbors": 3}}}, "unknown key"),
        (
            {"probe": None, "probes": {"a": {}}, "compare": {"metric": "enrichment_ratio"}},
            "need the section probe",
        ),
        ({"compare": {"seeds": [1, 1]}}, "holds a value twice"),
        ({"compare": {"metric": "finetune"}}, "needs the section finetune"),
        ({"probe": None}, "needs the section probe"),
        ({"pretrain": {}}, "pretrain.cluster.mode=serial"),
        ({"probe": {"neighbors": 3}}, "unknown key"),
        ({"compare": {"arms": {"a/b": []}, "references": ["a/b"]}}, "compare.arms"),
        ({"compare": {"ratios": [1.5]}}, "ratio"),
        ({"finetune": {"train": {"step": 5}}}, "train.step"),
        (
            {"finetune": {"data": {"manifest": "a.parquet"}}},
            "finetune.data.test_manifest is needed",
        ),
    ],
)
def test_faults_are_found_before_anything_runs(changes, message):
    with pytest.raises(ConfigError, match=message):
        _load(**changes)
