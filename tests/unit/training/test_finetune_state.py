"""Fine-tuning starts from our checkpoints and official files, or says in one line why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from tats_ray.data.clips import Cursor
from tats_ray.errors import CheckpointError
from tats_ray.models.mae import build_mae
from tats_ray.models.state import model_state
from tats_ray.training.checkpoint import Progress, RunState, write_checkpoint
from tats_ray.training.classifier import build_classifier, read_classifier
from tats_ray.training.initial_weights import load_initial_encoder
from tats_ray.training.reports import TrainerState
from tests.finetuning import finetune_config


@pytest.fixture
def run(tmp_path):
    """A pre-training run with one checkpoint."""
    config = finetune_config()
    mae = build_mae(config.model, config.grid, seed=9)
    state = RunState(TrainerState(4, {"mae": model_state(mae), "mae_optimizer": {}}), None)
    write_checkpoint(tmp_path / "run" / "checkpoints", state, Progress(4, 32, Cursor(), 0), keep=2)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config.model_dump()))
    return tmp_path / "run"


def _load(source, *overrides):
    config = finetune_config(f"train.initial_weights={source}", *overrides)
    model = build_classifier(config, 3)
    head = model.head.weight.detach().clone()
    load_initial_encoder(model, config.model, config.train.initial_weights)
    assert torch.equal(model.head.weight, head), "the head is new"
    return model


@pytest.mark.parametrize("inner", ["", "checkpoints/step_00000004"])
def test_a_run_and_a_checkpoint_of_it_are_loaded(run, inner):
    model = _load(run / inner)
    config = finetune_config()
    wanted = build_mae(config.model, config.grid, seed=9)
    for name, value in wanted.encoder.blocks.state_dict().items():
        assert torch.equal(model.blocks.state_dict()[name], value), name
    embedding = wanted.patch_embedding.projection.weight
    assert torch.equal(model.patch_embedding.projection.weight, embedding)


def test_an_official_file_is_loaded(tmp_path):
    config = finetune_config()
    mae = build_mae(config.model, config.grid, seed=9)
    weights = {
        f"encoder.blocks.{name}": value for name, value in mae.encoder.blocks.state_dict().items()
    }
    kernel = mae.patch_embedding.projection.weight.view(24, 2, 16, 16, 3).permute(0, 4, 1, 2, 3)
    weights["encoder.patch_embed.proj.weight"] = kernel.contiguous()
    weights["encoder.patch_embed.proj.bias"] = mae.patch_embedding.projection.bias
    save_torch(weights, tmp_path / "official.safetensors")
    model = _load(tmp_path / "official.safetensors")
    assert torch.equal(
        model.patch_embedding.projection.weight, mae.patch_embedding.projection.weight
    )
    assert torch.equal(model.blocks[1].mlp.fc1.weight, mae.encoder.blocks[1].mlp.fc1.weight)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.heads=4", "pre-trained with model.heads=2, not 4; set model.heads=2"),
        ("model.positions=sinusoid_3d", "set model.positions=sinusoid_1d"),
        ("model.depth=3", "set model.depth=2"),
    ],
)
def test_another_architecture_is_named_with_the_remedy(run, override, message):
    with pytest.raises(CheckpointError, match=r"train.initial_weights") as caught:
        _load(run, override)
    assert message in str(caught.value)


def test_weights_of_another_shape_are_named(run):
    (run / "config.yaml").unlink()
    with pytest.raises(
        CheckpointError, match=r"weight 'patch_embedding.projection.weight' has shape"
    ):
        _load(run, "model.width=48")
    with pytest.raises(CheckpointError, match=r"weight 'blocks.2.* is missing"):
        _load(run, "model.depth=3")


def test_no_checkpoint_and_damage_are_named(run, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere: cannot be read \(there is no such file"):
        _load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty: contains no complete checkpoint"):
        _load(tmp_path / "empty")
    file = run / "checkpoints" / "step_00000004" / "mae.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"mae.safetensors: is not a complete"):
        _load(run)


def test_a_classifier_comes_back_with_its_classes(tmp_path):
    state = TrainerState(
        3,
        {"classifier": {"w": np.ones(2)}, "classifier_optimizer": {"w/exp_avg": np.zeros(2)}},
        {"classes": ["a", "b"]},
    )
    progress = Progress(3, 24, Cursor(2, 1), 0)
    folder = write_checkpoint(tmp_path, RunState(state, None), progress, keep=1)
    got = read_classifier(folder)
    assert (got.step, got.documents) == (3, {"classes": ["a", "b"]})
    assert np.array_equal(got.files["classifier"]["w"], np.ones(2))
    (folder / "classes.json").write_text('{"a": 1}')
    with pytest.raises(CheckpointError, match=r"classes.json: is not a list"):
        read_classifier(folder)
    save_file({"w": np.array([np.nan])}, folder / "classifier.safetensors")
    (folder / "classes.json").write_text('["a", "b"]')
    with pytest.raises(CheckpointError, match="not finite"):
        read_classifier(folder)
