"""A moving average of the weights: its numbers, its resume, and who reads it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tats_ray.data.clips import Cursor
from tats_ray.evaluation.inspection import Inspector
from tats_ray.training.checkpoint import (
    Progress,
    read_autoencoder,
    read_state,
    write_checkpoint,
)
from tats_ray.training.initial_weights import load_initial_weights
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config
from tests.iterations import Training

DECAY = 0.8
CONFIG = ["masking.system=tube", f"train.ema_decay={DECAY}"]


def _same(one, two):
    assert one.keys() == two.keys()
    return all(np.array_equal(one[name], two[name]) for name in one)


def test_each_step_moves_the_average_by_its_share():
    plain = Training(tiny_config("masking.system=tube"))
    weights = [plain.after(step).trainer.files["mae"] for step in (1, 2, 3)]
    begin = MAETrainer(tiny_config("masking.system=tube"), torch.device("cpu"))
    wanted = {name: value.astype(np.float64) for name, value in begin.weights().items()}
    for after in weights:
        wanted = {k: DECAY * value + (1 - DECAY) * after[k] for k, value in wanted.items()}
    files = Training(tiny_config(*CONFIG)).after(3).trainer.files
    assert _same(files["mae"], weights[-1]), "training goes on as without it"
    for name, value in wanted.items():
        assert files["mae_average"][name] == pytest.approx(value, abs=1e-6), name


def test_a_resumed_average_goes_on_as_it_was(tmp_path):
    config = tiny_config(*CONFIG)
    whole = Training(config).after(4).trainer.files
    state = Training(config).after(2)
    write_checkpoint(tmp_path, state, Progress(2, 16, Cursor(), 0), 1)
    again = Training(config)
    again.executor.trainer.load(read_state(tmp_path / "step_00000002").trainer)
    again.step = 2
    assert _same(again.after(4).trainer.files["mae_average"], whole["mae_average"])


def test_whoever_evaluates_or_starts_from_a_run_reads_the_average(tmp_path):
    config = tiny_config(*CONFIG)
    state = Training(config).after(3)
    average = state.trainer.files["mae_average"]
    assert not _same(average, state.trainer.files["mae"])
    step = write_checkpoint(tmp_path, state, Progress(3, 24, Cursor(), 0), 1)
    assert _same(read_autoencoder(step), average)
    shown = Inspector(config, read_state(step)).mae.state_dict()
    assert all(np.array_equal(value.numpy(), average[name]) for name, value in shown.items())
    fresh = MAETrainer(tiny_config("masking.system=tube", "run.seed=5"), torch.device("cpu"))
    load_initial_weights(fresh.parts, config.model, str(step))
    assert _same(fresh.weights(), average)


def test_without_one_the_weights_themselves_are_read(tmp_path):
    state = Training(tiny_config("masking.system=tube")).after(1)
    step = write_checkpoint(tmp_path, state, Progress(1, 8, Cursor(), 0), 1)
    assert _same(read_autoencoder(step), state.trainer.files["mae"])
