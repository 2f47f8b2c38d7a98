"""The masked autoencoder sees only what is visible and predicts only what is asked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tats_ray.config import TokenGrid, load_config
from tats_ray.config.model import ModelSettings
from tats_ray.models.mae import PatchEmbedding, build_mae, target_index
from tats_ray.models.tokens import IMAGE_MEAN, IMAGE_STD, patchify, position_table, sinusoid_1d
from tats_ray.training.pretraining_model import build_pretraining_model
from tests.conftest import tiny_config

CONFIG = tiny_config()
TOKENS, VISIBLE = CONFIG.grid.tokens, CONFIG.visible


@pytest.fixture
def mae():
    return build_mae(CONFIG.model, CONFIG.grid, seed=0).eval()


@pytest.fixture
def case(mae):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 3, 8, 32, 32, generator=generator)
    visible = torch.stack([torch.randperm(TOKENS, generator=generator)[:VISIBLE] for _ in range(3)])
    visible = visible.sort(dim=1).values
    return mae.patches(pixels), visible, target_index(visible, TOKENS, TOKENS - VISIBLE, None)


def test_patch_embedding_is_a_strided_convolution():
    embedding = PatchEmbedding(2 * 4 * 4, 10)
    weight = embedding.projection.weight.view(10, 2, 4, 4, 3).permute(0, 4, 1, 2, 3)
    pixels = torch.rand(2, 3, 4, 8, 8)
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    standard = (pixels - mean.view(3, 1, 1, 1)) / std.view(3, 1, 1, 1)
    conv = nn.functional.conv3d(standard, weight, embedding.projection.bias, stride=(2, 4, 4))
    tokens = embedding(patchify(pixels, 2, 4))
    assert torch.allclose(tokens, conv.flatten(2).transpose(1, 2), atol=1e-5)


def _spread(weight, bound):
    """Uniform up to the bound: near it at most, and bound / sqrt(3) in the root mean square."""
    largest, deviation = weight.abs().max().item(), weight.square().mean().sqrt().item()
    assert 0.98 * bound < largest <= bound
    assert deviation == pytest.approx(bound / 3**0.5, rel=0.05)


def test_the_patch_embedding_starts_as_a_convolution_of_pytorch():
    """VideoMAE leaves it so; the same generator gives the same numbers."""
    torch.manual_seed(0)
    ours = PatchEmbedding(2 * 16 * 16, 24).projection
    torch.manual_seed(0)
    convolution = nn.Conv3d(3, 24, (2, 16, 16))
    assert torch.equal(ours.weight.flatten(), convolution.weight.flatten())
    assert torch.equal(ours.bias, convolution.bias)
    _spread(build_mae(CONFIG.model, CONFIG.grid, 0).patch_embedding.projection.weight, 1536**-0.5)


def test_start_weights_are_videomaes():
    """Xavier inside encoder and decoder, PyTorch's own for the layer between them."""
    model = ModelSettings(size="small", depth=1)
    with_motion = build_pretraining_model(
        tiny_config("model.size=small", "model.width=384", "model.heads=6", "model.depth=1",
                    "model.decoder.width=192", "model.motion_target.weight=1",
                    "masking.system=trackmae"),
        build_mae(model, CONFIG.grid, 0), None,
    )  # fmt: skip
    mae = with_motion.mae
    for decoder in (mae.decoder, with_motion.motion_decoder):
        _spread(decoder.embedding.weight, 384**-0.5)
        assert decoder.mask_token is mae.decoder.mask_token
    for block, d in ((mae.encoder.blocks[0], 384), (mae.decoder.blocks[0], 192),
                     (with_motion.motion_decoder.blocks[0], 192)):  # fmt: skip
        _spread(block.attn.qkv.weight, (6 / (4 * d)) ** 0.5)
        _spread(block.attn.proj.weight, (6 / (2 * d)) ** 0.5)
        _spread(block.mlp.fc1.weight, (6 / (5 * d)) ** 0.5)
        _spread(block.mlp.fc2.weight, (6 / (5 * d)) ** 0.5)
        for layer in (block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert layer.bias.abs().max() == 0
        assert block.attn.q_bias.abs().max() == block.attn.v_bias.abs().max() == 0
        assert (block.norm1.weight == 1).all() and (block.norm1.bias == 0).all()
    _spread(mae.decoder.head.weight, (6 / (192 + 1536)) ** 0.5)
    assert mae.decoder.head.bias.abs().max() == 0


def test_the_mask_token_is_cut_off_at_one_deviation():
    """Which leaves .54 of it: sqrt(1 - 2 phi(1) / (2 Phi(1) - 1)) for a normal distribution."""
    token = build_mae(ModelSettings(size="large", depth=1), CONFIG.grid, 0).decoder.mask_token
    assert 0.0195 < token.abs().max() <= 0.02
    assert token.std().item() == pytest.approx(0.02 * 0.5396, rel=0.1)


def test_positions_are_the_published_sinusoid():
    table = sinusoid_1d(torch.arange(20), 6)
    for token in (0, 1, 19):
        for column in range(6):
            angle = token / 10000 ** (2 * (column // 2) / 6)
            wanted = math.sin(angle) if column % 2 == 0 else math.cos(angle)
            assert table[token, column].item() == pytest.approx(wanted, abs=1e-6)


def test_3d_positions_join_the_codes_of_time_row_and_column():
    grid = TokenGrid(3, 4, 5)
    table = position_table("sinusoid_3d", grid, 32)  # 12 for time, 10 each for row and column
    assert table.shape == (60, 32)
    assert len(torch.unique(table, dim=0)) == 60
    token = 2 * 20 + 3 * 5 + 1
    parts = [sinusoid_1d(torch.tensor([place]), width)[0]
             for place, width in ((2, 12), (3, 10), (1, 10))]  # fmt: skip
    assert torch.equal(table[token], torch.cat(parts))


def test_masked_pixels_do_not_reach_the_prediction(mae, case):
    patches, visible, targets = case
    before = mae(patches, visible, targets).prediction
    spoiled = patches.clone()
    spoiled.scatter_(1, targets[:, :, None, None].expand(-1, -1, *patches.shape[2:]), 0.5)
    after = mae(spoiled, visible, targets).prediction
    assert torch.equal(before, after)


def test_every_visible_token_reaches_the_prediction(mae, case):
    patches, visible, targets = case
    before = mae(patches, visible, targets).prediction
    for place in range(VISIBLE):
        changed = patches.clone()
        changed[0, visible[0, place]] += 0.3
        after = mae(changed, visible, targets).prediction
        assert not torch.allclose(before[0], after[0])
        assert torch.equal(before[1:], after[1:])


def test_the_order_of_visible_tokens_does_not_matter(mae, case):
    patches, visible, targets = case
    turned = mae(patches, visible.flip(1), targets).prediction
    assert torch.allclose(turned, mae(patches, visible, targets).prediction, atol=1e-5)


def test_error_is_the_mean_squared_difference(mae, case):
    result = mae(*case)
    wanted = ((result.prediction - result.target) ** 2).mean(-1)
    assert torch.allclose(result.error, wanted)
    assert result.error.shape == case[2].shape


def test_target_fraction_predicts_a_seeded_subset(mae, case):
    patches, visible, everything = case
    noise = torch.rand(3, TOKENS)
    some = target_index(visible, TOKENS, 5, noise)
    assert some.shape == (3, 5)
    assert (some.diff(dim=1) > 0).all()
    for row in range(3):
        assert set(some[row].tolist()) <= set(everything[row].tolist())
    assert torch.equal(some, target_index(visible, TOKENS, 5, noise))
    assert mae(patches, visible, some).prediction.shape[1] == 5


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    untouched = torch.rand(3)
    torch.manual_seed(5)
    one, two = (build_mae(CONFIG.model, CONFIG.grid, seed=1).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(3), untouched)
    other = build_mae(CONFIG.model, CONFIG.grid, seed=2).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["decoder.head.weight"], other["decoder.head.weight"])


def test_it_can_learn_one_clip(mae, case):
    patches, visible, targets = case
    optimizer = torch.optim.AdamW(mae.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = mae(patches, visible, targets).error.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize(("size", "millions"), [("small", 24.03), ("base", 94.21)])
def test_sizes_have_the_published_parameter_counts(size, millions):
    """Counted on VideoMAE's own modules."""
    config = load_config(None, ["run.name=x", f"model.size={size}"])
    with torch.device("meta"):
        model = build_mae(config.model, config.grid, 0)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.006)
