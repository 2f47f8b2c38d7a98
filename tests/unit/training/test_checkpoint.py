"""A checkpoint comes back exactly, or says what is wrong with it."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tats_ray.data.clips import Cursor
from tats_ray.errors import CheckpointError, NonFiniteError
from tats_ray.training.checkpoint import (
    Progress,
    checkpoints,
    read_progress,
    read_state,
    write_checkpoint,
)
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import random_clips, tiny_config
from tests.iterations import Training

CONFIG = tiny_config()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained():
    return Training(CONFIG).after(3)


def _progress(step):
    return Progress(step, 8 * step, Cursor(6, 1), policy_version=step)


def _same(one, two):
    return one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)


def test_everything_comes_back(tmp_path, trained):
    path = write_checkpoint(tmp_path, trained, _progress(3), keep=2)
    assert read_progress(path) == _progress(3)
    read = read_state(path)
    assert _same(read.trainer.files["mae"], trained.trainer.files["mae"])
    assert _same(read.trainer.files["mae_optimizer"], trained.trainer.files["mae_optimizer"])
    assert _same(read.policy.sampler, trained.policy.sampler)
    assert _same(read.policy.optimizer, trained.policy.optimizer)
    assert (read.trainer.step, read.policy.version) == (3, 3)


def test_training_goes_on_bit_for_bit(tmp_path, trained):
    undisturbed, resumed = Training(CONFIG), Training(CONFIG)
    undisturbed.after(3)
    resumed.executor.load(read_state(write_checkpoint(tmp_path, trained, _progress(3), keep=2)))
    resumed.step = 3
    wanted, got = undisturbed.after(5), resumed.after(5)
    assert _same(wanted.trainer.files["mae"], got.trainer.files["mae"])
    assert _same(wanted.trainer.files["mae_optimizer"], got.trainer.files["mae_optimizer"])
    assert _same(wanted.policy.sampler, got.policy.sampler)


def test_the_newest_are_kept_and_nothing_half_written_counts(tmp_path, trained):
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, trained, _progress(step), keep=2)
    (tmp_path / ".step_00000009.77").mkdir()  # a crash while writing
    (tmp_path / "step_00000010").mkdir()  # a crash of the file system
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000002", "step_00000003"]


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def _pickle_bomb(file):
    class Bomb:
        def __reduce__(self):
            return (os.system, (f"touch {file.parent}/exploded",))

    file.write_bytes(pickle.dumps(Bomb()))


def _poison(file):
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name] = np.full_like(tensors[name], np.nan)
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(_truncate, "not a complete safetensors file"), (_pickle_bomb, "not a complete safetensors"),
     (_poison, "not finite")],
)  # fmt: skip
def test_damaged_weights_are_refused_and_nothing_runs(tmp_path, trained, spoil, message):
    path = write_checkpoint(tmp_path, trained, _progress(1), keep=2)
    spoil(path / "mae.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        read_state(path)
    assert "mae.safetensors" in str(caught.value)
    assert not (path / "exploded").exists()


def test_damaged_progress_is_refused(tmp_path, trained):
    path = write_checkpoint(tmp_path, trained, _progress(1), keep=2)
    file = path / "progress.json"
    content = json.loads(file.read_text())
    for spoiled in ("{", "[]", json.dumps({**content, "format": 99}), json.dumps({"format": 2})):
        file.write_text(spoiled)
        with pytest.raises(CheckpointError, match=r"progress\.json"):
            read_progress(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.depth=3", "is missing; the checkpoint is of another model"),
        ("model.depth=1", "does not belong to this model"),
        ("model.width=32", "has shape"),
    ],
)
def test_weights_of_another_model_are_named(trained, override, message):
    other = MAETrainer(tiny_config(override), CPU)
    with pytest.raises(CheckpointError, match=message):
        other.load(trained.trainer)


def test_a_report_names_the_step_that_went_wrong():
    trainer = MAETrainer(CONFIG, CPU)
    clips = random_clips(CONFIG, 8)
    trainer.train_step(clips)
    with torch.no_grad():
        trainer.mae.decoder.head.bias[0] = float("nan")
    before = trainer.state().files["mae"]
    trainer.train_step(clips)
    trainer.train_step(clips)
    with pytest.raises(NonFiniteError, match="step 2: "):
        trainer.reports()
    after = trainer.state().files["mae"]
    assert all(np.array_equal(before[k], after[k], equal_nan=True) for k in before)
