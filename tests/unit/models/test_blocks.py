"""Our transformer block against timm's, with the same weights and the same random numbers."""

from __future__ import annotations

import pytest
import torch
from timm.models.beit import Block
from torch import nn

from tats_ray.models.transformer import Norm, SelfBlock


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {"qkv_bias": True, "norm_layer": Norm}),
        ({"drop_path": 0.4}, {"qkv_bias": True, "norm_layer": Norm, "drop_path": 0.4}),
        ({"bias": False, "norm": nn.LayerNorm}, {"norm_layer": nn.LayerNorm}),
    ],
    ids=["plain", "drop path", "no bias"],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_timms(ours, theirs, training):
    torch.manual_seed(1)
    reference = Block(24, 3, **theirs)
    torch.manual_seed(1)
    block = SelfBlock(24, 3, **ours)
    weights = reference.state_dict()
    assert list(dict(block.named_parameters())) == list(dict(reference.named_parameters()))
    drawn = {name: value for name, value in block.state_dict().items() if "weight" in name}
    assert all(torch.equal(weights[name], value) for name, value in drawn.items()), "start weights"
    for part in (reference, block):
        part.train(training)
    for name in ("q_bias", "v_bias"):
        if ours.get("bias", True):
            nn.init.normal_(getattr(reference.attn, name))
    block.load_state_dict(reference.state_dict())
    tokens, results = torch.randn(6, 7, 24), []
    for part in (reference, block):
        given = tokens.clone().requires_grad_()
        torch.manual_seed(2)
        output = part(given)
        output.square().sum().backward()
        results.append([output, given.grad, *(weight.grad for weight in part.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
