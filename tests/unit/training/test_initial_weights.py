"""Pre-training starts from a run of ours or an official file, or says in one line why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tats_ray.config import dump_config
from tats_ray.data.clips import Cursor
from tats_ray.errors import CheckpointError
from tats_ray.models.state import model_state
from tats_ray.rl.learner import PolicyState
from tats_ray.training.checkpoint import Progress, RunState, write_checkpoint
from tats_ray.training.initial_weights import load_initial_policy
from tats_ray.training.mae_trainer import MAETrainer
from tats_ray.training.pretraining_model import build_policy
from tests.conftest import random_clips, tiny_config

CPU = torch.device("cpu")
ADAMAE = ["masking.system=adamae", "masking.heads=2"]


def _run(folder, *overrides):
    """A run of one step with a checkpoint, and its state."""
    config = tiny_config("run.seed=5", *overrides)
    trainer = MAETrainer(config, CPU)
    clips = random_clips(config, 8)
    trainer.train_step(clips)
    policy = None
    if config.learns_by_rollouts:
        policy = PolicyState(3, model_state(build_policy(config)), {})
    state = RunState(trainer.state(), policy)
    write_checkpoint(folder / "checkpoints", state, Progress(1, 8, Cursor(), 3), keep=1)
    (folder / "config.yaml").write_text(dump_config(config))
    return state


def _equal(one, two):
    return all(np.array_equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize("inner", ["", "checkpoints/step_00000001"])
def test_a_run_or_checkpoint_gives_autoencoder_and_policy(tmp_path, inner):
    state = _run(tmp_path)
    source = str(tmp_path / inner)
    config = tiny_config(f"train.initial_weights={source}")
    trainer = MAETrainer(config, CPU)
    assert _equal(trainer.state().files["mae"], state.trainer.files["mae"])
    assert trainer.step == 0, "the schedule and the moments are new"
    assert trainer.state().files["mae_optimizer"] == {}
    policy = build_policy(config)
    assert not _equal(model_state(policy), state.policy.sampler), "another seed"
    load_initial_policy(policy, source)
    assert _equal(model_state(policy), state.policy.sampler)


def test_a_joint_sampler_comes_along_where_it_has_the_same_shape(tmp_path):
    state = _run(tmp_path, *ADAMAE)
    given = f"train.initial_weights={tmp_path}"
    same = MAETrainer(tiny_config(given, *ADAMAE), CPU).state()
    assert _equal(same.files["mae"], state.trainer.files["mae"])
    assert _equal(same.files["auxiliary"], state.trainer.files["auxiliary"])
    larger = ["data.size=64", "data.stored_height=64", "data.stored_width=64"]  # more positions
    other = MAETrainer(tiny_config(given, *ADAMAE, *larger), CPU).state()
    assert _equal(other.files["mae"], state.trainer.files["mae"])
    fresh = MAETrainer(tiny_config(*ADAMAE, *larger), CPU).state()
    assert _equal(other.files["auxiliary"], fresh.files["auxiliary"])


def test_another_system_takes_the_autoencoder_alone(tmp_path):
    state = _run(tmp_path, "masking.system=tube")
    config = tiny_config(f"train.initial_weights={tmp_path}")
    assert _equal(MAETrainer(config, CPU).state().files["mae"], state.trainer.files["mae"])
    policy, fresh = build_policy(config), model_state(build_policy(config))
    load_initial_policy(policy, str(tmp_path))
    assert _equal(model_state(policy), fresh)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.heads=4", "was pre-trained with model.heads=2, not 4; set model.heads=2"),
        ("model.decoder.heads=4", "set model.decoder.heads=2"),
        ("model.decoder.depth=2", "set model.decoder.depth=1"),
        ("model.positions=sinusoid_3d", "set model.positions=sinusoid_1d"),
        ("model.target.frames=4", "(1536, 16), the model needs (768, 16)"),
    ],
)
def test_another_architecture_is_named(tmp_path, override, message):
    _run(tmp_path)
    with pytest.raises(CheckpointError, match=r"^train\.initial_weights: ") as caught:
        MAETrainer(tiny_config(f"train.initial_weights={tmp_path}", override), CPU)
    assert message in str(caught.value)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"train\.initial_weights: .*nowhere"):
        MAETrainer(tiny_config(f"train.initial_weights={tmp_path}/nowhere"), CPU)
