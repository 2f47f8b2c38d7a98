"""Trajectory attention against the equations written out as loops (Motionformer eq. 3-7)."""

from __future__ import annotations

import pytest
import torch

from tats_ray.models.trajectory import TrajectoryAttention


def plain_trajectory_attention(module: TrajectoryAttention, tokens: torch.Tensor) -> torch.Tensor:
    """Every projection where the paper has it, every sum as a loop."""
    batch, count, width = tokens.shape
    heads, frames = module.heads, module.frames
    per_frame, channels = count // frames, width // heads
    query, key, value = module.query(tokens), module.key(tokens), module.value(tokens)
    output = torch.zeros_like(tokens)
    for b in range(batch):
        for n in range(count):
            own = n // per_frame
            trajectory = torch.zeros(frames, width, dtype=tokens.dtype)
            for h in range(heads):
                part = slice(h * channels, (h + 1) * channels)
                for f in range(frames):
                    space = range(f * per_frame, (f + 1) * per_frame)
                    scores = torch.stack([query[b, n, part] @ key[b, m, part] for m in space])
                    weights = (scores * channels**-0.5).softmax(0)
                    trajectory[f, part] = sum(
                        w * value[b, m, part] for w, m in zip(weights, space, strict=True)
                    )
            question = module.trajectory_query(trajectory[own])
            keys = module.trajectory_key(trajectory)
            values = module.trajectory_value(trajectory)
            for h in range(heads):
                part = slice(h * channels, (h + 1) * channels)
                weights = (keys[:, part] @ question[part] * channels**-0.5).softmax(0)
                output[b, n, part] = weights @ values[:, part]
    return module.projection(output)


@pytest.mark.parametrize(("frames", "per_frame", "heads"), [(3, 4, 2), (1, 5, 1), (4, 1, 3)])
def test_output_and_gradients_equal_the_loops(frames, per_frame, heads):
    torch.manual_seed(0)
    width = 4 * heads
    module = TrajectoryAttention(width, heads, frames).double()
    tokens = torch.randn(2, frames * per_frame, width, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, frames * per_frame, width, dtype=torch.float64)
    wanted = plain_trajectory_attention(module, tokens)
    inputs = [tokens, *module.parameters()]
    wanted_gradients = torch.autograd.grad((wanted * direction).sum(), inputs)
    got = module(tokens)
    got_gradients = torch.autograd.grad((got * direction).sum(), inputs)
    assert torch.allclose(got, wanted, atol=1e-12)
    for one, two in zip(got_gradients, wanted_gradients, strict=True):
        assert torch.allclose(one, two, atol=1e-11)


def test_every_weight_gets_a_gradient():
    """Motionformer's published code leaves half of a projection without one."""
    module = TrajectoryAttention(8, 2, 2)
    module(torch.randn(1, 6, 8)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())
