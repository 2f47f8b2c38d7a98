"""What is exported gives the same numbers in transformers and timm, and comes back bit for bit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from transformers import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEModel,
)

from tats_ray.cli.export import export_main
from tats_ray.models.state import model_state
from tats_ray.models.tokens import masked_index, standardize
from tats_ray.training.pretrained import read_pretrained
from tests.exports import CLASSES, exported, finetuning_run, pretraining_run

ROOT = Path(__file__).resolve().parents[3]
VISIBLE = torch.tensor([[1, 6, 8, 15], [0, 2, 3, 9]])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run, its configuration and autoencoder, and its export for transformers."""
    folder = tmp_path_factory.mktemp("pretrained")
    config, mae = pretraining_run(folder / "run")
    return folder / "run", config, mae, exported(folder / "run", folder / "hf", "huggingface")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    config, model = finetuning_run(folder / "run")
    return folder / "run", config, model, exported(folder / "run", folder / "hf", "huggingface")


def _pixels():
    return torch.rand(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))


def _standardized(pixels):
    """As transformers wants them: [B, T, 3, S, S]."""
    return standardize(pixels.movedim(1, -1)).movedim(-1, 2)


def _loaded(kind, folder, unexpected=()):
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    assert all(key.startswith(unexpected) for key in report["unexpected_keys"])
    return model.eval()


def _masked():
    masked = torch.ones(2, 16, dtype=torch.bool)
    return masked.scatter(1, VISIBLE, False)


@torch.no_grad()
def test_transformers_reconstructs_the_same(pretrained):
    *_, mae, folder = pretrained
    model, pixels = _loaded(VideoMAEForPreTraining, folder), _pixels()
    patches = mae.patches(pixels)
    wanted = mae(patches, VISIBLE, masked_index(VISIBLE, 16))
    assert mae.encoder.blocks[0].attn.q_bias.abs().max() > 0.1
    got = model(_standardized(pixels), bool_masked_pos=_masked())
    assert got.logits.abs().max() > 1
    assert torch.allclose(got.logits, wanted.prediction, rtol=1e-5, atol=1e-5)
    assert torch.allclose(got.loss, wanted.error.mean(), rtol=1e-5)
    model.decoder.norm.eps = 1e-6  # the one number that its configuration cannot say
    got = model(_standardized(pixels), bool_masked_pos=_masked()).logits
    assert torch.allclose(got, wanted.prediction, rtol=0, atol=1e-5)


@torch.no_grad()
def test_transformers_encodes_the_same(pretrained, tmp_path):
    run, _, mae, folder = pretrained
    pixels = _pixels()
    wanted = mae.encode(mae.patches(pixels), VISIBLE)
    alone = exported(run, tmp_path / "encoder", "huggingface", encoder_only=True)
    for place, decoder in ((folder, ("decoder.", "encoder_to_decoder", "mask_token")), (alone, ())):
        model = _loaded(VideoMAEModel, place, decoder)
        got = model(_standardized(pixels), bool_masked_pos=_masked()).last_hidden_state
        assert torch.allclose(got, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_transformers_classifies_the_same(tuned):
    *_, ours, folder = tuned
    model, pixels = _loaded(VideoMAEForVideoClassification, folder), _pixels()
    assert model.config.id2label == dict(enumerate(CLASSES))
    wanted = ours(pixels)
    assert torch.allclose(model(_standardized(pixels)).logits, wanted, rtol=1e-5, atol=1e-5)


def test_its_image_processor_standardizes_as_we_do(pretrained):
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    processor = VideoMAEImageProcessor.from_pretrained(pretrained[3])
    got = processor(list(frames), return_tensors="pt").pixel_values
    pixels = torch.from_numpy(frames).movedim(-1, 0)[None] / 255
    assert torch.allclose(got, _standardized(pixels), atol=1e-6)


@pytest.mark.parametrize("form", ["huggingface", "safetensors"])
def test_an_autoencoder_comes_back_bit_for_bit(pretrained, tmp_path, form):
    run, config, mae, _ = pretrained
    given = read_pretrained(exported(run, tmp_path / "out", form))
    _assert_equal(given.autoencoder, model_state(mae))
    assert given.model["heads"] == config.model.heads
    assert given.model["decoder"]["heads"] == config.model.decoder.heads


@pytest.mark.parametrize("form", ["huggingface", "safetensors"])
def test_a_classifier_comes_back_bit_for_bit(tuned, tmp_path, form):
    run, _, model, _ = tuned
    given = read_pretrained(exported(run, tmp_path / "out", form))
    _assert_equal(given.classifier, model_state(model))
    assert given.classes == CLASSES
    assert given.encoder.keys() == {
        name.replace("blocks.", "encoder.blocks.")
        for name in model_state(model)
        if name.startswith(("patch_embedding.", "blocks."))
    }


@pytest.mark.parametrize("kind", [VideoMAEForPreTraining, VideoMAEModel])
def test_what_transformers_saves_comes_back(pretrained, tmp_path, kind):
    """With the names that this version of it writes, with a prefix and without."""
    *_, mae, folder = pretrained
    kind.from_pretrained(folder).save_pretrained(tmp_path)
    given, wanted = read_pretrained(tmp_path).autoencoder, model_state(mae)
    if kind is VideoMAEModel:
        wanted = {k: v for k, v in wanted.items() if not k.startswith("decoder.")}
    _assert_equal(given, wanted)


def test_both_generations_of_names_are_read(pretrained, tmp_path):
    *_, mae, folder = pretrained
    old = load_file(folder / "model.safetensors")
    assert "videomae.encoder.layer.0.attention.attention.q_bias" in old
    new = {
        re.sub(r"(q|v)_bias$", lambda m: {"q": "query", "v": "value"}[m[1]] + ".bias", name): value
        for name, value in old.items()
    }
    assert "videomae.encoder.layer.0.attention.attention.query.bias" in new
    save_file(new, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    _assert_equal(read_pretrained(tmp_path).autoencoder, model_state(mae))
    _assert_equal(read_pretrained(folder).autoencoder, model_state(mae))


def test_the_lines_of_the_page_load_the_encoder_into_timm(pretrained, tmp_path, monkeypatch):
    run, _, mae, _ = pretrained
    exported(run, tmp_path / "exported", "timm")
    page = (ROOT / "docs" / "weights.md").read_text()
    lines = re.search(r"```python\n(import timm.*?)```", page, re.DOTALL)[1]
    sizes = {"768": "24", "depth=12": "depth=2", "num_heads=12": "num_heads=2", "1568": "16"}
    for published, tiny in sizes.items():
        assert published in lines
        lines = lines.replace(published, tiny)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(lines, "weights.md", "exec"), names)
    pixels = _pixels()
    everything = torch.arange(16).expand(2, -1)
    with torch.no_grad():
        wanted = mae.encode(mae.patches(pixels), everything)
        got = names["model"].eval()(_standardized(pixels).transpose(1, 2))
    assert torch.allclose(got, wanted, rtol=0, atol=1e-5)


def test_other_positions_go_to_timm(tmp_path):
    _, mae = pretraining_run(tmp_path / "run", "model.positions=sinusoid_3d")
    folder = exported(tmp_path / "run", tmp_path / "out", "timm")
    table = load_torch(folder / "model.safetensors")["pos_embed"]
    assert torch.equal(table[0], mae.encoder.positions)


def test_the_card_and_the_settings_tell_no_path(tuned, pretrained):
    for run, config, _, folder in (tuned, pretrained):
        card, settings = ((folder / name).read_text() for name in ("README.md", "config.yaml"))
        assert str(run.parent) not in card + settings
        assert f"4 of {config.train.batch_size} clips" in card and "## Licence" in card
    assert "| top1 | 0.25 |" in (tuned[3] / "README.md").read_text()
    card = (pretrained[3] / "README.md").read_text()
    assert "| masking system | tats |" in card and "| mask ratio | 0.75 |" in card
    assert "| visible tokens | 4 of 16 |" in card and "load_sampler" in card


@pytest.mark.parametrize(
    ("overrides", "form", "message"),
    [
        (["model.positions=sinusoid_3d"], "huggingface", "use --format timm, which stores"),
        (["model.decoder.attention=cross"], "huggingface", "add --encoder for the encoder alone"),
        (["model.target.normalize=joint"], "huggingface", "model.target.normalize=joint cannot"),
        (["model.target.frames=4"], "huggingface", "model.target.frames=4 cannot be exported"),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_line(
    tmp_path, capsys, overrides, form, message
):
    pretraining_run(tmp_path / "run", *overrides)
    out = tmp_path / "out"
    assert export_main([str(tmp_path / "run"), str(out), "--format", form]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: model.")
    assert not out.exists()
    if "--encoder" in error:
        assert export_main([str(tmp_path / "run"), str(out), "--encoder"]) == 0
        assert json.loads((out / "config.json").read_text())["architectures"] == ["VideoMAEModel"]


def test_a_classifier_has_no_decoder_and_no_place_in_timm(tuned, tmp_path, capsys):
    for words in (["--encoder"], ["--format", "timm"]):
        assert export_main([str(tuned[0]), str(tmp_path / "out"), *words]) == 2
        assert "is a fine-tuning run" in capsys.readouterr().err
    assert export_main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "contains no complete checkpoint" in capsys.readouterr().err


def test_a_folder_with_files_is_left_alone(pretrained, capsys):
    before = sorted(pretrained[3].iterdir())
    assert export_main([str(pretrained[0]), str(pretrained[3])]) == 1
    assert "it holds other files" in capsys.readouterr().err
    assert sorted(pretrained[3].iterdir()) == before


def _assert_equal(given, wanted):
    assert given.keys() == wanted.keys()
    for name, value in wanted.items():
        assert np.array_equal(given[name], value), name
