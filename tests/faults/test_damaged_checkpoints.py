"""Damaged and foreign checkpoints, wherever one is given: a typed error, and nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from tats_ray.cli.finetune import finetune_main
from tats_ray.cli.probe import probe_main
from tats_ray.config import dump_config
from tats_ray.controller.pretrain import pretrain
from tats_ray.data.clips import Cursor
from tats_ray.errors import CheckpointError, RunDirectoryError, TatsRayError
from tats_ray.models.official import read_official
from tats_ray.training.checkpoint import Progress, read_state, write_checkpoint
from tats_ray.training.initial_weights import load_initial_weights
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config
from tests.finetuning import TINY_FINETUNE
from tests.iterations import Training

CPU = torch.device("cpu")
QUIET = "tracking.mlflow=false"


class _Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


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


def _change(file, change):
    tensors = load_file(file)
    name = sorted(tensors)[0]
    changed = change(tensors, name)
    save_file(tensors if changed is None else changed, file)


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def _huge_header(file):
    """The header's length points far behind the end of the file."""
    file.write_bytes((2**60).to_bytes(8, "little") + file.read_bytes()[8:])


def _bomb(file):
    file.write_bytes(pickle.dumps(_Bomb(file.parent / "exploded")))


def _torch_bomb(file):
    torch.save({"model": _Bomb(file.parent / "exploded")}, file)


def _empty(file):
    file.write_bytes(b"")


def _missing(file):
    file.unlink()


def _poison(file):
    _change(file, lambda tensors, name: tensors[name].fill(np.nan))


def _reshape(file):
    _change(file, lambda tensors, name: {**tensors, name: np.zeros((3, 5), np.float32)})


def _foreign(file):
    _change(file, lambda tensors, name: {**tensors, "backbone.conv1.weight": np.ones(3)})


def _lacking(file):
    _change(file, lambda tensors, name: {k: v for k, v in tensors.items() if k != name})


def _integers(file):
    _change(file, lambda tensors, name: {**tensors, name: tensors[name].astype(np.int64)})


def _half_precision(file):
    """A type that numpy does not have."""
    tensors = {name: torch.from_numpy(value).bfloat16() for name, value in load_file(file).items()}
    save_torch(tensors, file)


DAMAGES = [_truncate, _huge_header, _bomb, _torch_bomb, _empty, _missing, _poison, _reshape,
           _foreign, _lacking, _integers, _half_precision]  # fmt: skip
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
    if damage is _integers and name.endswith("optimizer"):
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
    _truncate(run / "checkpoints" / "step_00000004" / "mae.safetensors")
    with pytest.raises(CheckpointError, match="continues from the one before if this folder is"):
        _resume(run, synthetic)
    shutil.rmtree(run / "checkpoints" / "step_00000004")
    _resume(run, synthetic)
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["resumed_from"], summary["steps"]) == (2, 12)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_probe_names_its_checkpoint(run, step, synthetic, damage, capsys):
    damage(step / "mae.safetensors")
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
    """`integers` are in the decoder here, which fine-tuning leaves out."""
    damage(step / "mae.safetensors")
    if damage in (_integers, _lacking, _foreign, _reshape):
        tensors = load_file(step / "mae.safetensors")
        name = "encoder.blocks.0.attn.qkv.weight"
        if damage is _reshape:
            tensors[name] = tensors[name][:, :-1].copy()
        elif damage is _integers:
            tensors[name] = tensors[name].astype(np.int32)
        else:
            del tensors[name]
        save_file(tensors, step / "mae.safetensors")
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


OFFICIAL = {"encoder.norm.weight": torch.ones(24), "encoder.norm.bias": torch.zeros(24)}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("damage", [_bomb, _torch_bomb, _empty, _missing, _huge_header])
def test_official_files_are_never_run(tmp_path, suffix, damage):
    file = tmp_path / f"official.{suffix}"
    file.write_bytes(bytes(64))
    damage(file)
    with pytest.raises(CheckpointError, match=f"official.{suffix}: cannot be read"):
        pretrain(
            tiny_config(f"train.initial_weights={file}", f"run.output_dir={tmp_path}/runs"),
            must_resume=False,
        )
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "runs").exists()


def test_a_bomb_beside_real_weights_is_never_run(tmp_path):
    """In the places that the codes use for their settings, and as legacy and zip files."""
    for legacy in (True, False):
        content = {"model": OFFICIAL, "args": _Bomb(tmp_path / "exploded")}
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(CheckpointError, match=r"a\.pth: cannot be read"):
            read_official(tmp_path / "a.pth")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"encoder.norm.weight": torch.full((24,), torch.nan)}}, "not finite"),
        ({"model": {3: torch.ones(3)}}, "holds no weights"),
        ({"model": {"encoder.norm.weight": [1.0]}}, "holds no weights"),
        ({"model": {"encoder.norm.weight": torch.ones(3).to_sparse()}}, "holds no weights"),
        ({}, "holds no weights"),
        ([1, 2], "holds no weights"),
        ({"model": {"encoder.patch_embed.proj.weight": torch.ones(4, 3, 16, 16)}}, "video model"),
        ({"model": {"visual.conv1.weight": torch.ones(3)}}, "not belong to a pre-training model"),
        ({"model": OFFICIAL}, "is missing; the checkpoint is of another model"),
    ],
)
def test_foreign_official_files_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    config = tiny_config()
    parts = MAETrainer(config, CPU).parts
    with pytest.raises(CheckpointError, match=message) as caught:
        load_initial_weights(parts, config.model, str(tmp_path / "a.pth"))
    assert str(tmp_path / "a.pth") in str(caught.value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_escapes_as_another_error(tmp_path, step_files, data):
    """Bytes cut off, overwritten or doubled anywhere in any file."""
    kind = data.draw(st.sampled_from(sorted(step_files)))
    content = bytearray(step_files[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.sampled_from(["cut", "flip", "double"]))
        if cut == "cut":
            content = content[: max(1, place)]
        elif cut == "flip":
            content[place] ^= data.draw(st.integers(1, 255))
        else:
            content = content[:place] + content[max(0, place - 64) :]
    file = tmp_path / kind
    file.write_bytes(content)
    try:
        read_official(file)
    except TatsRayError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def step_files(tmp_path_factory):
    """Small official files in the three forms that they come in."""
    folder = tmp_path_factory.mktemp("official")
    save_torch(OFFICIAL, folder / "a.safetensors")
    torch.save({"model": OFFICIAL}, folder / "a.pth")
    torch.save({"model": OFFICIAL}, folder / "old.pth", _use_new_zipfile_serialization=False)
    assert zipfile.is_zipfile(folder / "a.pth") and not zipfile.is_zipfile(folder / "old.pth")
    return {file.name: file.read_bytes() for file in folder.iterdir()}
