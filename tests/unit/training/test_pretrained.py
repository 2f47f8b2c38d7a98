"""Weights from elsewhere: what is damaged or foreign is named in one line; training starts from
the rest."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tats_ray.errors import CheckpointError
from tats_ray.models.state import model_state
from tats_ray.training.classifier import build_classifier
from tats_ray.training.initial_weights import load_initial_encoder
from tats_ray.training.mae_trainer import MAETrainer
from tats_ray.training.pretrained import read_pretrained
from tests.conftest import tiny_config
from tests.exports import exported, finetuning_run, pretraining_run
from tests.faults.damage import bomb, empty, huge_header, poison, truncate
from tests.finetuning import finetune_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Exports of a pre-training and of a fine-tuning run, and their models."""
    root = tmp_path_factory.mktemp("folders")
    _, mae = pretraining_run(root / "pretrained")
    _, classifier = finetuning_run(root / "tuned")
    for name in ("pretrained", "tuned"):
        for form in ("huggingface", "safetensors"):
            exported(root / name, root / f"{name}_{form}", form)
    return root, mae, classifier


@pytest.fixture
def copy(folders, tmp_path):
    """A folder of transformers to damage."""
    shutil.copytree(folders[0] / "pretrained_huggingface", tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("form", ["huggingface", "safetensors"])
def test_pretraining_starts_from_an_export(folders, form):
    root, mae, _ = folders
    config = tiny_config(f"train.initial_weights={root}/pretrained_{form}", "masking.system=tube")
    started = model_state(MAETrainer(config, CPU).mae)
    assert all(np.array_equal(started[name], value) for name, value in model_state(mae).items())


@pytest.mark.parametrize(
    "source", ["pretrained_huggingface", "pretrained_safetensors", "tuned", "tuned_huggingface"]
)
def test_fine_tuning_starts_from_any_encoder(folders, source):
    root, mae, classifier = folders
    config = finetune_config()
    model = build_classifier(config, 5)
    load_initial_encoder(model, config.model, str(root / source))
    wanted = classifier if source.startswith("tuned") else mae.encoder
    for name, value in wanted.blocks.state_dict().items():
        assert torch.equal(model.blocks.state_dict()[name], value), name


@pytest.mark.parametrize("source", ["tuned", "tuned_huggingface"])
def test_pretraining_needs_a_decoder(folders, source):
    given = f"train.initial_weights={folders[0]}/{source}"
    with pytest.raises(CheckpointError, match=r"is a fine-tuned classifier, .*start from pre-"):
        MAETrainer(tiny_config(given), CPU)


@pytest.mark.parametrize("source", ["pretrained_huggingface", "pretrained_safetensors"])
def test_another_architecture_is_named_with_the_remedy(folders, source):
    given = f"train.initial_weights={folders[0]}/{source}"
    with pytest.raises(CheckpointError, match=r"with model\.heads=2, not 4; set model\.heads=2"):
        MAETrainer(tiny_config(given, "model.heads=4"), CPU)


def test_a_cache_of_links_is_read(copy, tmp_path):
    file = copy / "model.safetensors"
    file.rename(tmp_path / "blob")
    file.symlink_to(tmp_path / "blob")
    assert read_pretrained(copy).autoencoder


def test_half_precision_becomes_float32(copy):
    file = copy / "model.safetensors"
    save_file({name: value.astype(np.float16) for name, value in load_file(file).items()}, file)
    assert {value.dtype for value in read_pretrained(copy).weights.values()} == {
        np.dtype(np.float32)
    }


@pytest.mark.parametrize("damage", [truncate, huge_header, empty, bomb, poison])
def test_damaged_weights_are_named(copy, damage):
    damage(copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: ") as caught:
        read_pretrained(copy)
    assert "\n" not in str(caught.value)
    assert not (copy / "exploded").exists()


def test_a_missing_file_is_named(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"contains no model\.safetensors; save the model"):
        read_pretrained(copy)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("videomae.embeddings.patch_embeddings.projection.weight", (24, 3, 16, 16)),
        ("videomae.embeddings.patch_embeddings.projection.weight", (24, 3, 4, 16, 16)),
        ("videomae.encoder.layer.0.attention.attention.query.weight", (12, 24)),
        ("videomae.encoder.layer.1.attention.attention.v_bias", (12,)),
        ("decoder.head.bias", (3,)),
        ("mask_token", (1, 1, 8)),
        ("videomae.encoder.layer.0.output.other.weight", (3,)),
    ],
)
def test_wrong_shapes_and_names_are_named(copy, name, shape):
    file = copy / "model.safetensors"
    save_file({**load_file(file), name: np.zeros(shape, np.float32)}, file)
    given = f"train.initial_weights={copy}"
    with pytest.raises(CheckpointError, match=r"^train\.initial_weights: .*weight '"):
        MAETrainer(tiny_config(given), CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "vivit"}, "model_type is vivit; only videomae can be read"),
        ({"hidden_act": "relu"}, "hidden_act is relu; only gelu"),
        ({"intermediate_size": 48}, "intermediate_size is 48; only 96"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers: input should be a valid integer"),
        ({"architectures": ["VideoMAEForDepth"]}, "architectures names VideoMAEForDepth; only"),
        ({"architectures": []}, "architectures: list should have at least 1 item"),
    ],
)
def test_a_configuration_of_another_model_is_named(copy, changes, message):
    file = copy / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_pretrained(copy)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "3", '{"a": NaN}', " " * (2 << 20)])
def test_a_damaged_configuration_is_named(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json: ") as caught:
        read_pretrained(copy)
    assert "\n" not in str(caught.value)


def test_what_is_for_timm_is_not_read(folders, tmp_path):
    folder = exported(folders[0] / "pretrained", tmp_path / "timm", "timm")
    with pytest.raises(CheckpointError, match="other names, as those of --format timm; export"):
        read_pretrained(folder)


def test_classes_must_be_numbered(folders, tmp_path):
    shutil.copytree(folders[0] / "tuned_huggingface", tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"id2label": {"1": "a", "2": "b"}}))
    with pytest.raises(CheckpointError, match="id2label: does not name the classes 0, 1"):
        read_pretrained(tmp_path / "copy")
