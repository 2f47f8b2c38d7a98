"""The decoder with cross-attention against loops, and what follows from its form."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tats_ray.controller.step_cost import step_flops
from tats_ray.models.mae import build_mae, target_index
from tats_ray.models.transformer import CrossBlock
from tests.conftest import tiny_config

CROSS = "model.decoder.attention=cross"


def _attend(block: CrossBlock, asked: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """One clip: every question and head by itself."""
    width = asked.shape[1]
    size = width // block.heads
    query = block.query(block.attention_norm(asked))
    key, value = block.key_value(known)[:, :width], block.key_value(known)[:, width:]
    read = torch.zeros_like(asked)
    for question in range(len(asked)):
        for head in range(block.heads):
            part = slice(head * size, (head + 1) * size)
            scores = [query[question, part] @ k[part] / math.sqrt(size) for k in key]
            weights = torch.stack(scores).softmax(0)
            read[question, part] = (weights[:, None] * value[:, part]).sum(0)
    asked = asked + block.projection(read)
    hidden = F.gelu(block.mlp.fc1(block.mlp_norm(asked)))
    return asked + block.mlp.fc2(hidden)


def test_a_block_is_attention_of_each_question_by_itself():
    torch.manual_seed(0)
    block = CrossBlock(12, 3)
    asked, known = torch.randn(2, 5, 12), torch.randn(2, 4, 12)
    wanted = torch.stack([_attend(block, a, k) for a, k in zip(asked, known, strict=True)])
    assert torch.allclose(block(asked, known), wanted, atol=1e-5)


@pytest.fixture
def case():
    config = tiny_config(CROSS, "model.decoder.depth=2")
    mae = build_mae(config.model, config.grid, 0).eval()
    generator = torch.Generator().manual_seed(0)
    patches = mae.patches(torch.rand(3, 3, 8, 32, 32, generator=generator))
    order = torch.stack([torch.randperm(16, generator=generator) for _ in range(3)])
    visible = order[:, :4].sort(dim=1).values
    return mae, patches, visible, target_index(visible, 16, 12, None)


def test_a_target_is_predicted_alike_whatever_others_are(case):
    mae, patches, visible, targets = case
    everything = mae(patches, visible, targets)
    chosen = torch.tensor([1, 4, 11])
    some = mae(patches, visible, targets[:, chosen])
    assert torch.allclose(some.prediction, everything.prediction[:, chosen], atol=1e-6)
    assert torch.allclose(some.error, everything.error[:, chosen], atol=1e-6)


def test_every_visible_token_is_read(case):
    mae, patches, visible, targets = case
    patches = patches.clone().requires_grad_()
    mae(patches, visible, targets).prediction.sum().backward()
    touched = patches.grad.abs().sum(dim=(2, 3)) > 0
    assert touched.gather(1, visible).all()
    assert touched.sum() == visible.numel()


def test_a_step_costs_what_a_count_by_hand_says():
    """As tests/unit/evaluation/test_cost.py, with queries of 12 targets over 4 visible tokens."""
    config = tiny_config("masking.system=random", CROSS)
    values = 2 * 16 * 16 * 3

    def linear(tokens: int, inputs: int, outputs: int) -> int:
        return 2 * tokens * inputs * outputs

    encoder = 2 * (linear(4, 24, 12 * 24) + 2 * linear(4, 24, 4))
    decoder = (
        linear(4, 24, 16) + linear(12, 16, 16) + linear(4, 16, 32) + 2 * linear(12, 16, 4)
        + linear(12, 16, 16) + linear(12, 16, 8 * 16) + linear(12, 16, values)
    )  # fmt: skip
    by_hand = config.train.batch_size * (2 * linear(4, values, 24) + 3 * (encoder + decoder))
    assert step_flops(config) == pytest.approx(by_hand, rel=1e-3)
