"""Faults of the user's are one line that names the field and the remedy, before torch or Ray."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.config import config_from_dict, dump_config, load_config
from tats_ray.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
NAMED = "run.name=x"


@pytest.mark.parametrize(
    ("overrides", "field", "remedy"),
    [
        (["run.nam=x"], "run.nam", "did you mean run.name?"),
        ([NAMED, "train.stepz=3"], "train.stepz", "did you mean train.steps?"),
        ([NAMED, "nonsense=3"], "nonsense", "known here: run"),
        ([NAMED, "model.decoder.zzz=3"], "model.decoder.zzz", "target_fraction"),
        ([], "run", "set it in the file or as run="),
        ([NAMED, "train.steps=many"], "train.steps", "integer"),
        ([NAMED, "train.steps=1.5"], "train.steps", "integer"),
        ([NAMED, "train.steps=0"], "train.steps", "greater than or equal to 1"),
        ([NAMED, "data.flip=true"], "data.flip", "unknown key"),
        ([NAMED, "masking.system=magic"], "masking.system", "known here: tats, adamae, mgm"),
        ([NAMED, "masking.system=tubes"], "masking.system", "did you mean tube?"),
        ([NAMED, "masking.system=[1]"], "masking.system", "valid string"),
        ([NAMED, "masking.system=no.such:System"], "masking.system", "start where its module lies"),
        ([NAMED, "masking.system=tats_ray.masking.tube:Tub"], "masking.system", "has no Tub"),
        ([NAMED, "masking.rule=box"], "masking.rule", "known here: system, ratio, warmup_steps"),
        ([NAMED, "masking.system=mgm", "masking.rul=box"], "masking.rul", "mean masking.rule?"),
        ([NAMED, "masking.system=mgm", "masking.rule=ring"], "masking.rule", "'box' or 'topk'"),
        (
            [NAMED, "masking.sampler.widht=8"],
            "masking.sampler.widht",
            "mean masking.sampler.wid",
        ),
        (
            [NAMED, "masking.adamae.heads=8"],
            "masking.adamae",
            "renamed; use masking.heads",
        ),
        ([NAMED, "masking.mgm={}"], "masking.mgm", "has been renamed; use masking.rule"),
        ([NAMED, "masking.trackmae=1"], "masking.trackmae", "use masking.motion_ratio"),
        (
            [NAMED, "masking.system=trackmae", "masking.ratio=0.3", "masking.motion_ratio=1.0"],
            "masking.motion_ratio",
            "set masking.motion_ratio=0.5",
        ),
        ([NAMED, "data.size=100"], "data.size", "use data.size=96"),
        ([NAMED, "data.frames=15"], "data.frames", "model.tubelet 2"),
        ([NAMED, "masking.ratio=0.9999"], "masking.ratio", "at least one must be visible"),
        ([NAMED, "masking.ratio=1.0"], "masking.ratio", "less than 1"),
        ([NAMED, "train.workers=3"], "train.batch_size", "use train.batch_size=258"),
        ([NAMED, "rl.learners=3"], "rl.learners", "does not divide the 256 clips"),
        ([NAMED, "rl.minibatch_clips=7"], "rl.minibatch_clips", "divide the 256 clips"),
        ([NAMED, "rl.baseline=group"], "rl", "set rl.draws_per_clip >= 2"),
        ([NAMED, "model.heads=5"], "model", "not divisible by heads 5"),
        ([NAMED, "train.publish_interval=9"], "train.publish_interval", "is now fixed at 1; leave"),
        ([NAMED, "masking.sampler.blocks=2"], "masking.sampler.blocks", "is now fixed at 1; leave"),
        ([NAMED, "cluster.mode=address"], "cluster", "cluster.mode=address"),
        ([NAMED, "masking.system=mgm", "data.motion.source=none"], "data.motion.source", "auto"),
        (
            [NAMED, "masking.system=mgm", "data.motion.source=cotracker3"],
            "data.motion.source",
            "use one of dense_flow, vectors",
        ),
        (
            [NAMED, "masking.system=mgm", "model.motion_target.weight=1"],
            "model.motion_target",
            "set model.motion_target.weight=0",
        ),
        ([NAMED, "masking.system=adamae", "masking.heads=7"], "masking.heads", "768"),
        (
            [NAMED, "masking.system=adamae", "masking.warmup_steps=9"],
            "masking.warmup_steps",
            "unknown key; known here: system, ratio, coefficient",
        ),
        ([NAMED, "data.repeats=3"], "data.block_clips", "not divisible by data.repeats 3"),
        ([NAMED, "masking.system=frame", "masking.ratio=0.1"], "masking.ratio", "one masked"),
        ([NAMED, "model.target.weight=0"], "model", "nothing is predicted"),
        (
            [NAMED, "model.target.weight=0", "model.motion_target.weight=1"],
            "masking.system tats",
            "set model.target.weight above 0",
        ),
        (["run.name=../up"], "run.name", "pattern"),
        (["train.steps"], "train.steps", "section.key=value"),
        ([NAMED, "train.steps=[1"], "train.steps", "not a YAML value"),
        ([NAMED, "run.name.first=x"], "run.name.first", "is a value, not a section"),
    ],
)
def test_faults_name_field_and_remedy(overrides, field, remedy):
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    message = str(caught.value)
    assert message.startswith((field, f"override '{field}"))
    assert remedy in message
    assert "\n" not in message


def test_a_fault_leaves_with_code_2_before_torch_or_ray(tmp_path):
    """The whole command, as a user runs it."""
    script = (
        "import sys, runpy\n"
        "sys.argv = ['pretrain.py', 'run.name=x', 'train.stepz=3']\n"
        "try:\n    runpy.run_path('jobs/pretrain.py', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'ray', 'mlflow', 'decord'} & set(sys.modules)\n"
        "    print(end.code, sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "2 []\n"
    assert done.stderr == "error: train.stepz: unknown key; did you mean train.steps?\n"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"run: [1", ":1"),
        (b"run:\n  name: x\n bad: 1", ":3"),
        (b"- a\n- b\n", ":1"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, content, where):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path, [])
    assert str(path) in str(caught.value)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml", [])


def test_overrides_come_after_the_file_and_in_order(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("\ufeffrun: {name: file}\ntrain: {steps: 5, base_lr: 1e-3}\n", encoding="utf-8")
    config = load_config(path, ["train.steps=6", "train.steps=7"])
    assert (config.run.name, config.train.steps, config.train.base_lr) == ("file", 7, 1e-3)


@pytest.mark.parametrize(
    "overrides", [["masking.sampler.width=96"], ["masking.system=mgm", "masking.rule=topk"]]
)
def test_dump_and_load_agree(overrides):
    config = load_config(None, [NAMED, "model.size=large", "rl.staleness=3", *overrides])
    assert config_from_dict(yaml.safe_load(dump_config(config))) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_another_system_keeps_what_all_have_and_drops_what_only_the_former_has(tmp_path):
    path = tmp_path / "tats.yaml"
    path.write_text(
        "run: {name: a}\nmasking: {ratio: 0.8, warmup_steps: 3, sampler: {width: 9, heads: 3}}"
    )
    assert load_config(path, ["masking.system=tats"]).masking.sampler.width == 9
    switched = load_config(path, ["masking.system=mgm", "masking.rule=topk"]).masking
    assert (switched.ratio, switched.rule) == (0.8, "topk")
    back = load_config(path, ["masking.system=mgm", "masking.rule=topk", "masking.system=tats"])
    assert (back.masking.ratio, back.masking.warmup_steps, back.masking.sampler.width) == (
        0.8, 0, 64,
    )  # fmt: skip


def test_a_switch_hides_no_misspelling_and_no_foreign_key_of_a_file(tmp_path):
    with pytest.raises(ConfigError, match=r"masking.ratoi: unknown key"):
        load_config(None, [NAMED, "masking.ratoi=0.5", "masking.system=tube"])
    path = tmp_path / "both.yaml"
    path.write_text("run: {name: a}\nmasking: {system: tube, sampler: {width: 96}}\n")
    with pytest.raises(ConfigError, match=r"masking.sampler: unknown key; known here: system, rat"):
        load_config(path, [])


def test_size_fills_what_is_not_given():
    config = load_config(None, [NAMED, "model.size=small", "model.depth=3"])
    assert (config.model.width, config.model.depth, config.model.decoder.width) == (384, 3, 192)


PRETRAINING = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/recipes/*.yaml")])


@pytest.mark.parametrize("path", PRETRAINING, ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    assert load_config(path, []).run.name


@given(
    key=st.text(st.characters(blacklist_characters="=."), min_size=1, max_size=8),
    value=st.text(max_size=12),
)
def test_no_override_escapes_as_another_error(key, value):
    """Whatever is typed, the answer is a config or a ConfigError."""
    try:
        load_config(None, [NAMED, f"{key}={value}", f"train.{key}={value}"])
    except ConfigError as error:
        assert "\n" not in str(error)
