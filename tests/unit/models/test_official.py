"""Official checkpoints: same weights and same visible set give the official reconstruction.

The reference is the published architecture written out with the official parameter names.
"""

from __future__ import annotations

import argparse
import math
import os

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tats_ray.errors import CheckpointError
from tats_ray.models.official import read_official
from tats_ray.models.tokens import masked_index
from tats_ray.training.initial_weights import load_initial_weights
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config

CONFIG = tiny_config("masking.system=adamae", "masking.heads=2")
TOKENS, WIDTH, NARROW, PATCH, TUBELET = 16, 24, 16, 16, 2
HEADS, NARROW_HEADS = 2, 2


def _block_shapes(prefix, width, biased=True):
    shapes = {
        "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,),
        "norm2.bias": (width,), "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
        "mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,),
    }  # fmt: skip
    if biased:
        shapes |= {"attn.q_bias": (width,), "attn.v_bias": (width,)}
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def _official():
    """Random weights under the names of the AdaMAE code."""
    values = 3 * TUBELET * PATCH**2
    shapes = {
        "encoder.patch_embed.proj.weight": (WIDTH, 3, TUBELET, PATCH, PATCH),
        "encoder.patch_embed.proj.bias": (WIDTH,),
        "encoder.norm.weight": (WIDTH,), "encoder.norm.bias": (WIDTH,),
        "encoder_to_decoder.weight": (NARROW, WIDTH), "mask_token": (1, 1, NARROW),
        "decoder.norm.weight": (NARROW,), "decoder.norm.bias": (NARROW,),
        "decoder.head.weight": (values, NARROW), "decoder.head.bias": (values,),
        "encoder.pos_embed_probs": (1, TOKENS, WIDTH),
        "encoder.get_token_probs.1.weight": (1, WIDTH), "encoder.get_token_probs.1.bias": (1,),
        **_block_shapes("encoder.blocks.0", WIDTH), **_block_shapes("encoder.blocks.1", WIDTH),
        **_block_shapes("decoder.blocks.0", NARROW),
        **_block_shapes("encoder.get_token_probs.0", WIDTH, biased=False),
    }  # fmt: skip
    torch.manual_seed(0)
    return {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}


def _block(w, prefix, x, heads, eps):
    part = {k.removeprefix(f"{prefix}."): v for k, v in w.items() if k.startswith(f"{prefix}.")}
    width = x.shape[-1]
    h = F.layer_norm(x, (width,), part["norm1.weight"], part["norm1.bias"], eps)
    zero = torch.zeros(width)
    bias = torch.cat([part.get("attn.q_bias", zero), zero, part.get("attn.v_bias", zero)])
    q, k, v = F.linear(h, part["attn.qkv.weight"], bias).unflatten(-1, (3, heads, -1)).unbind(2)
    scores = torch.einsum("bnhc,bmhc->bhnm", q, k) / math.sqrt(width // heads)
    h = torch.einsum("bhnm,bmhc->bnhc", scores.softmax(-1), v).flatten(2)
    x = x + F.linear(h, part["attn.proj.weight"], part["attn.proj.bias"])
    h = F.layer_norm(x, (width,), part["norm2.weight"], part["norm2.bias"], eps)
    h = F.gelu(F.linear(h, part["mlp.fc1.weight"], part["mlp.fc1.bias"]))
    return x + F.linear(h, part["mlp.fc2.weight"], part["mlp.fc2.bias"])


def _sinusoid(width):
    table = torch.zeros(TOKENS, width, dtype=torch.float64)
    for place in range(TOKENS):
        for column in range(width):
            angle = place / 10000 ** (2 * (column // 2) / width)
            table[place, column] = math.sin(angle) if column % 2 == 0 else math.cos(angle)
    return table.float()


def _reference(w, pixels, visible):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (pixels - mean.view(3, 1, 1, 1)) / std.view(3, 1, 1, 1)
    stride = (TUBELET, PATCH, PATCH)
    x = F.conv3d(
        x, w["encoder.patch_embed.proj.weight"], w["encoder.patch_embed.proj.bias"], stride
    )
    tokens = x.flatten(2).transpose(1, 2)
    mask = torch.ones(TOKENS, dtype=torch.bool)
    mask[visible] = False
    x = (tokens + _sinusoid(WIDTH))[:, ~mask]
    for index in range(2):
        x = _block(w, f"encoder.blocks.{index}", x, HEADS, 1e-6)
    x = F.layer_norm(x, (WIDTH,), w["encoder.norm.weight"], w["encoder.norm.bias"], 1e-6)
    x = F.linear(x, w["encoder_to_decoder.weight"])
    places = _sinusoid(NARROW)
    hidden = (w["mask_token"] + places[mask]).expand(len(x), -1, -1)
    x = _block(w, "decoder.blocks.0", torch.cat([x + places[~mask], hidden], 1), NARROW_HEADS, 1e-6)
    x = F.layer_norm(x, (NARROW,), w["decoder.norm.weight"], w["decoder.norm.bias"], 1e-6)
    prediction = F.linear(
        x[:, -int(mask.sum()) :], w["decoder.head.weight"], w["decoder.head.bias"]
    )
    s = tokens + w["encoder.pos_embed_probs"]
    s = _block(w, "encoder.get_token_probs.0", s, HEADS, 1e-5)
    logits = F.linear(s, w["encoder.get_token_probs.1.weight"], w["encoder.get_token_probs.1.bias"])
    return prediction, logits.squeeze(-1).softmax(-1)


@pytest.mark.parametrize("container", ["model", "module", "safetensors"])
def test_the_official_reconstruction_and_policy_come_back(tmp_path, container):
    weights = _official()
    if container == "safetensors":
        path = tmp_path / "checkpoint.safetensors"
        save_file(weights, path)
    else:
        path = tmp_path / "checkpoint.pth"
        command = argparse.Namespace(mask_ratio=0.95, model="pretrain_mae")
        torch.save({container: weights, "epoch": 800, "args": command}, path)
    parts = MAETrainer(CONFIG, torch.device("cpu")).parts.eval()
    load_initial_weights(parts, CONFIG.model, str(path))
    pixels = torch.rand(2, 3, 8, 32, 32)
    visible = torch.tensor([1, 6, 8, 15])
    wanted, p = _reference(weights, pixels, visible)
    with torch.no_grad():
        patches = parts.mae.patches(pixels)
        index = visible.expand(2, -1)
        got = parts.mae(patches, index, masked_index(index, TOKENS)).prediction
        log_p = parts.sampler(parts.mae.patch_embedding(patches))
    assert torch.allclose(got, wanted, atol=2e-5)
    assert torch.allclose(log_p.exp(), p, atol=1e-6)


def test_a_run_starts_from_official_weights(tmp_path):
    weights = _official()
    torch.save({"model": weights}, tmp_path / "official.pth")
    config = tiny_config(f"train.initial_weights={tmp_path}/official.pth", "masking.system=tube")
    mae = MAETrainer(config, torch.device("cpu")).mae
    assert torch.equal(mae.encoder.norm.weight, weights["encoder.norm.weight"])


class _Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_a_pickle_bomb_never_runs(tmp_path):
    torch.save({"model": _Bomb(tmp_path / "exploded")}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match=r"bomb\.pth: cannot be read"):
        read_official(tmp_path / "bomb.pth")
    assert not (tmp_path / "exploded").exists()


def test_what_does_not_fit_is_named(tmp_path):
    parts = MAETrainer(CONFIG, torch.device("cpu")).parts
    weights = _official()

    def saved(changed):
        torch.save({"model": changed}, tmp_path / "changed.pth")
        return tmp_path / "changed.pth"

    def load(changed):
        load_initial_weights(parts, CONFIG.model, str(saved(changed)))

    with pytest.raises(CheckpointError, match=r"head\.weight' has shape \(9, 16\).*model.decoder"):
        load(weights | {"decoder.head.weight": torch.zeros(9, NARROW)})
    missing = {k: v for k, v in weights.items() if k != "encoder.norm.bias"}
    with pytest.raises(CheckpointError, match=r"'encoder\.norm\.bias' is missing.*model\.size"):
        load(missing)
    deeper = {"encoder.blocks.2.norm1.bias": torch.zeros(WIDTH)}
    with pytest.raises(CheckpointError, match="does not belong to this model"):
        load(weights | deeper)
    with pytest.raises(CheckpointError, match=r"'head\.weight' does not belong to a pre-"):
        load(weights | {"head.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="no weights under 'model' or 'module'"):
        load({"epoch": 3})
    (tmp_path / "cut.pth").write_bytes(saved(weights).read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cut\.pth: cannot be read"):
        read_official(tmp_path / "cut.pth")
