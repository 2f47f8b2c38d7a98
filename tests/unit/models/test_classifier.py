"""The classifier is the encoder, a mean, a norm and a head; its rates fall layer by layer."""

from __future__ import annotations

import re

import pytest
import torch

from tats_ray.models.classifier import build_layered_adamw
from tats_ray.models.mae import build_mae
from tats_ray.models.optimizer import GuardedOptimizer
from tats_ray.models.state import model_state
from tats_ray.training.classifier import build_classifier
from tests.finetuning import PLAIN, finetune_config


def _layer(name: str, depth: int) -> int:
    """VideoMAE's numbering: embedding 0, block i is i + 1, everything above is depth + 1."""
    if name.startswith("patch_embedding"):
        return 0
    block = re.match(r"blocks\.(\d+)\.", name)
    return int(block[1]) + 1 if block else depth + 1


@pytest.mark.parametrize(("depth", "decay"), [(2, 0.75), (12, 0.7), (11, 0.9)])
def test_rates_follow_the_formula(depth, decay):
    model = build_classifier(finetune_config(f"model.depth={depth}"), 5)
    adamw = build_layered_adamw(model, 1e-3, 0.05, (0.9, 0.999), decay)
    optimizer = GuardedOptimizer(adamw, None)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.01)
    groups = {id(p): group for group in optimizer.optimizer.param_groups for p in group["params"]}
    assert len(groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        scale = decay ** (depth + 1 - _layer(name, depth))
        assert groups[id(parameter)]["lr"] == pytest.approx(0.01 * scale), name
        decays = groups[id(parameter)]["weight_decay"]
        assert decays == (0.05 if parameter.ndim > 1 else 0.0), name


def test_the_head_starts_at_a_thousandth():
    config = finetune_config("model.width=192", "model.heads=3")
    model = build_classifier(config, 100)
    assert model.head.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.05)
    assert model.head.bias.abs().max() == 0
    logits = model.eval()(torch.rand(2, 3, 8, 32, 32))
    assert logits.shape == (2, 100)
    assert logits.abs().max() < 0.01


def test_drop_path_grows_from_zero_to_the_last_block():
    config = finetune_config("model.depth=5", "classifier.drop_path=0.2")
    rates = [block.drop_path.probability for block in build_classifier(config, 3).blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_features_are_the_autoencoders_with_all_tokens_visible():
    """The same tokens at the same positions: but for the encoder's own norm, which is left out."""
    config = finetune_config(*PLAIN)
    mae = build_mae(config.model, config.grid, seed=3)
    model = build_classifier(config, 4)
    weights = model_state(model)
    for name, value in model_state(mae).items():
        ours = name.removeprefix("encoder.")
        if ours in weights and not ours.startswith("norm"):
            weights[ours] = value
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    pixels = torch.rand(2, 3, 8, 32, 32)
    mae.encoder.norm = torch.nn.Identity()
    everything = torch.arange(config.grid.tokens).expand(2, -1)
    tokens = mae.encode(mae.patches(pixels), everything)
    wanted = model.head(model.norm(tokens.mean(dim=1)))
    assert torch.allclose(model.eval()(pixels), wanted, atol=1e-7)
    assert wanted.abs().max() > 1e-5, "the comparison says something"
