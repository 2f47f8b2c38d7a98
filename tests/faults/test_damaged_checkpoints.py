"""Damaged and foreign checkpoints, wherever one is given: a typed error, and nothing runs."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file

from tats_ray.cli.evaluation import probe_main
from tats_ray.cli.train import finetune_main
from tats_ray.config import dump_config
from tats_ray.controller.pretrain import pretrain
from tats_ray.data.clips import Cursor
from tats_ray.errors import CheckpointError, RunDirectoryError
from tats_ray.training.checkpoint import Progress, read_progress, read_state, write_checkpoint
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config
from tests.faults.damage import DAMAGES, foreign, integers, lacking, reshape, truncate
from tests.finetuning import TINY_FINETUNE
from tests.iterations import Training

CPU = torch.device("cpu")
QUIET = "tracking.mlflow=false"


def _config(run):
    return tiny_config(QUIET, f"run.output_dir={run.parent}", f"run.name={run.name}")


@pytest.fixture(scope="module")
def trained():
    config = tiny_config()
    return Training(config).after(2)


@pytest.fixture
def run(tmp_path, trained):
    """A run directory with one checkpoint after two of its steps."""
    run = tmp_path / "runs" / "damaged"
    progress = Progress(2, 16, Cursor(4, 0), 2)
    write_checkpoint(run / "checkpoints", trained, progress, keep=1)
    (run / "config.yaml").write_text(dump_config(_config(run)))
    return run


@pytest.fixture
def step(run):
    return run / "checkpoints" / "step_00000002"


FILES = ["mae", "mae_optimizer", "sampler", "sampler_optimizer"]


def _resume(run, synthetic):
    config = tiny_config(
        QUIET, f"run.output_dir={run.parent}", f"run.name={run.name}",
        f"data.manifest={synthetic.train}", f"data.held_out_manifest={synthetic.held_out}",
    )  # fmt: skip
    (run / "config.yaml").write_text(dump_config(config))
    pretrain(config, must_resume=True)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_does_not_go_on_from_damage(run, step, synthetic, name, damage):
    """`integers` in an optimiser are read as numbers, which they are."""
    damage(step / f"{name}.safetensors")
    if damage is integers and name.endswith("optimizer"):
        read_state(step)
        return
    with pytest.raises(CheckpointError) as caught:
        _resume(run, synthetic)
    assert "\n" not in str(caught.value)
    assert not (step / "exploded").exists()
    assert not (run / "summary.json").exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", '{"format": 2', "null", "3", '"x"', "[1]", "{}", "[" * 100_000, "\x00" * 40,
     '{"format": 2, "step": "2", "clips": 16, "cursor": {}, "policy_version": 0}',
     '{"format": 2, "step": -2, "clips": 16, "cursor": {}, "policy_version": 0, "interval": {}}',
     '{"format": 2, "step": 2, "clips": 1, "cursor": {}, "policy_version": 0, "interval": [1]}',
     '{"format": 2, "step": 2, "clips": 1, "cursor": 7, "policy_version": 0, "interval": {}}',
     '{"format": 9}'],
)  # fmt: skip
def test_a_damaged_progress_is_named(run, step, synthetic, content):
    (step / "progress.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"progress\.json: "):
        _resume(run, synthetic)


@pytest.mark.parametrize("value", [-1, "2", 2.5, True, None, [], {}, 9 * 10**18, 10**30, 1e400])
@pytest.mark.parametrize(
    "field", ["step", "clips", "policy_version", "cursor.block", "cursor.row", "interval.loss"]
)
def test_every_field_of_a_progress_is_checked(step, field, value):
    file = step / "progress.json"
    content = json.loads(file.read_text())
    part, _, name = field.rpartition(".")
    (content[part] if part else content)[name] = value
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=rf"progress\.json: {field}"):
        read_progress(step)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 100, "clips": 800}, "step 100 is beyond train.steps 12"),
        ({"clips": 17}, "17 clips are not 2 steps of 8"),
        ({"cursor": {"block": 0, "row": 3}}, "comes before 16 clips"),
        ({"more": 1}, "more"),
    ],
)
def test_numbers_that_do_not_fit_the_run_are_named(run, step, synthetic, changes, message):
    file = step / "progress.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message):
        _resume(run, synthetic)


def _lead_away(file):
    elsewhere = file.parents[1] / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def _lead_to_a_device(file):
    file.unlink()
    file.symlink_to("/dev/zero")


def _pipe(file):
    file.unlink()
    os.mkfifo(file)


def _folder(file):
    file.unlink()
    file.mkdir()


def _hole(file):
    """More than this machine can hold, and nothing on the disk."""
    os.truncate(file, 1 << 42)


@pytest.mark.parametrize("damage", [_lead_away, _lead_to_a_device, _pipe, _folder, _hole])
@pytest.mark.parametrize("name", ["progress.json", "mae.safetensors", "sampler.safetensors"])
def test_only_files_of_a_sound_size_are_opened(step, name, damage):
    damage(step / name)
    with pytest.raises(CheckpointError, match=f"{name}: (is a link, folder|has 4,398,046,511,104)"):
        read_state(step)


@pytest.mark.parametrize("cut", [1, 50, 200])
def test_a_truncated_progress_is_named(run, step, synthetic, cut):
    file = step / "progress.json"
    file.write_text(file.read_text()[:-cut])
    with pytest.raises(CheckpointError, match=r"progress\.json: cannot be read"):
        _resume(run, synthetic)


@pytest.mark.parametrize("name", ["run.json", "summary.json", "quarantine.json"])
@pytest.mark.parametrize("content", ["", '{"a"', "[1]", "null"])
def test_damaged_run_files_are_named(run, synthetic, name, content):
    (run / name).write_text(content)
    with pytest.raises(RunDirectoryError, match=name.replace(".", r"\.")):
        _resume(run, synthetic)


def test_a_run_goes_on_from_the_checkpoint_before(run, step, synthetic):
    """What the message advises."""
    shutil.copytree(step, run / "checkpoints" / "step_00000004")
    truncate(run / "checkpoints" / "step_00000004" / "mae.safetensors")
    with pytest.raises(CheckpointError, match="continues from the one before if this folder is"):
        _resume(run, synthetic)
    shutil.rmtree(run / "checkpoints" / "step_00000004")
    _resume(run, synthetic)
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["resumed_from"], summary["steps"]) == (2, 12)


def _damage_encoder(step, damage):
    """Some faults hit the decoder first, which evaluation and fine-tuning leave out."""
    damage(step / "mae.safetensors")
    if damage in (integers, lacking, foreign, reshape):
        tensors = load_file(step / "mae.safetensors")
        name = "encoder.blocks.0.attn.qkv.weight"
        if damage is reshape:
            tensors[name] = tensors[name][:, :-1].copy()
        elif damage is integers:
            tensors[name] = tensors[name].astype(np.int32)
        else:
            del tensors[name]
        save_file(tensors, step / "mae.safetensors")


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_probe_names_its_checkpoint(run, step, synthetic, damage, capsys):
    _damage_encoder(step, damage)
    code = probe_main(
        [f"probe.checkpoint={run}", f"probe.train={synthetic.train}", QUIET,
         f"probe.test={synthetic.held_out}"]
    )  # fmt: skip
    message = capsys.readouterr().err
    assert code == 1
    assert message.startswith("error: ") and message.count("\n") == 1
    assert str(step) in message
    assert not (step / "exploded").exists()
    assert not list((run / "features").glob("*"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_fine_tuning_names_its_checkpoint(run, step, synthetic, damage, capsys):
    _damage_encoder(step, damage)
    code = finetune_main(
        [*TINY_FINETUNE, f"train.initial_weights={run}", f"data.manifest={synthetic.train}",
         f"run.output_dir={run.parent}", "run.name=tuned"]
    )  # fmt: skip
    message = capsys.readouterr().err
    assert code == 1
    assert message.startswith("error: train.initial_weights: ") and message.count("\n") == 1
    assert not (step / "exploded").exists()
    assert not (run.parent / "tuned").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_pre_training_names_the_checkpoint_that_it_starts_from(run, step, damage):
    damage(step / "mae.safetensors")
    with pytest.raises(CheckpointError, match=r"^train\.initial_weights: ") as caught:
        MAETrainer(tiny_config(f"train.initial_weights={run}"), CPU)
    assert "\n" not in str(caught.value)
    assert not (step / "exploded").exists()


def test_a_config_that_is_no_mapping_is_named(run, synthetic, capsys):
    settings_of = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**settings_of, "model": None, "data": 3}))
    given_settings = [f"probe.checkpoint={run}", f"probe.train={synthetic.train}",
                      f"probe.test={synthetic.held_out}"]  # fmt: skip
    assert probe_main(given_settings) == 2
    assert "config.yaml: 'data' is not a section" in capsys.readouterr().err
    tuned = [*TINY_FINETUNE, f"train.initial_weights={run}", f"data.manifest={synthetic.train}",
             f"run.output_dir={run.parent}", "run.name=tuned"]  # fmt: skip
    assert finetune_main(tuned) == 1
    assert "config.yaml: 'model' is not a section" in capsys.readouterr().err
