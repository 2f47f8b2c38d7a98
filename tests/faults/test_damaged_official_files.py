"""Damaged and foreign files of official weights: a typed error, and nothing runs."""

from __future__ import annotations

import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file as save_torch

from tats_ray.controller.pretrain import pretrain
from tats_ray.errors import CheckpointError, TatsRayError
from tats_ray.models.official import read_official
from tats_ray.training.initial_weights import load_initial_weights
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config
from tests.faults.damage import Bomb, bomb, empty, huge_header, missing, torch_bomb

CPU = torch.device("cpu")

OFFICIAL = {"encoder.norm.weight": torch.ones(24), "encoder.norm.bias": torch.zeros(24)}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("damage", [bomb, torch_bomb, empty, missing, huge_header])
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
        content = {"model": OFFICIAL, "args": Bomb(tmp_path / "exploded")}
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
