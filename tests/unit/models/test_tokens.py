"""Token arithmetic against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.config.geometry import TokenGrid, pixel_values
from tats_ray.config.model import TargetSettings
from tats_ray.models.tokens import (
    IMAGE_MEAN,
    IMAGE_STD,
    copy_error,
    gather_tokens,
    masked_index,
    patchify,
    pixel_view,
    reconstruction_target,
    scatter_tokens,
    target_scale,
    unpatchify,
)

GRID = TokenGrid(2, 3, 4)


def test_patchify_orders_time_row_column():
    pixels = torch.rand(2, 3, 4, 6, 8)
    patches = patchify(pixels, tubelet=2, patch=2)
    assert patches.shape == (2, GRID.tokens, 8, 3)
    for token in range(GRID.tokens):
        time, place = divmod(token, GRID.per_slice)
        row, column = divmod(place, GRID.columns)
        block = pixels[:, :, 2 * time : 2 * time + 2, 2 * row : 2 * row + 2,
                       2 * column : 2 * column + 2]  # fmt: skip
        assert torch.equal(patches[:, token], block.flatten(2).transpose(1, 2))


def test_unpatchify_is_the_inverse():
    pixels = torch.rand(2, 3, 4, 6, 8)
    assert torch.equal(unpatchify(patchify(pixels, 2, 2), GRID, 2, 2), pixels)


@given(tokens=st.integers(2, 40), data=st.data())
def test_masked_is_the_rest_in_order(tokens, data):
    count = data.draw(st.integers(1, tokens - 1))
    rows = [data.draw(st.permutations(range(tokens)))[:count] for _ in range(3)]
    masked = masked_index(torch.tensor(rows), tokens)
    for row, rest in zip(rows, masked.tolist(), strict=True):
        assert rest == [token for token in range(tokens) if token not in row]


def test_gather_and_scatter():
    tokens = 1 + torch.rand(2, 6, 3)
    index = torch.tensor([[4, 1], [0, 5]])
    picked = gather_tokens(tokens, index)
    assert torch.equal(picked, torch.stack([tokens[0, [4, 1]], tokens[1, [0, 5]]]))
    back = scatter_tokens(picked, index, 6)
    assert torch.equal(gather_tokens(back, index), picked)
    assert (back == 0).sum() == 2 * 4 * 3


@pytest.mark.parametrize("normalize", ["channel", "joint", "none"])
@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
def test_target_equals_the_formula(normalize, epsilon):
    patches = torch.rand(2, 3, 8, 3, dtype=torch.float64).float()
    target = reconstruction_target(patches, TargetSettings(normalize=normalize, epsilon=epsilon))
    values = patches.numpy().astype(np.float64)
    if normalize == "channel":  # VideoMAE: per colour, unbiased
        mean, std = values.mean(2, keepdims=True), values.std(2, keepdims=True, ddof=1)
        values = (values - mean) / (std + epsilon)
    elif normalize == "joint":  # MAE-ST: over all values, epsilon inside the root
        mean, variance = (
            values.mean((2, 3), keepdims=True),
            values.var((2, 3), keepdims=True, ddof=1),
        )
        values = (values - mean) / np.sqrt(variance + epsilon)
    assert np.allclose(target.numpy(), values.reshape(2, 3, 24), atol=1e-5)


@pytest.mark.parametrize("normalize", ["channel", "joint", "none"])
def test_the_scale_undoes_the_normalisation(normalize):
    """Also of flat patches, where epsilon decides."""
    patches = torch.rand(2, 3, 8, 3)
    patches[1, 2] = 0.25
    section = TargetSettings(normalize=normalize, epsilon=1e-4)
    target = reconstruction_target(patches, section)
    mean, scale = target_scale(patches, section)
    assert torch.isfinite(target).all()
    assert torch.allclose(target.view_as(patches) * scale + mean, patches, atol=1e-6)


def test_copy_error_by_loop():
    grid = TokenGrid(3, 2, 2)
    targets = torch.randn(2, 12, 5)
    got = copy_error(targets, grid)
    for b in range(2):
        for t in range(3):
            for place in range(4):
                others = [s for s in (t - 1, t + 1) if 0 <= s < 3]
                errors = [
                    (targets[b, t * 4 + place] - targets[b, s * 4 + place]).square().mean()
                    for s in others
                ]
                assert got[b, t * 4 + place].item() == pytest.approx(min(errors).item(), rel=1e-5)
    assert copy_error(targets[:, :4], TokenGrid(1, 2, 2)).isinf().all()


@pytest.mark.parametrize(("patch", "cells"), [(2, 2), (5, 1), (6, 3), (8, 4), (16, 4)])
def test_what_a_sampler_sees_of_pixels(patch, cells):
    """Mean colours of each token's cells, and how they change from slice to slice."""
    grid, tubelet, size = TokenGrid(3, 2, 1), 2, patch // cells
    pixels = torch.rand(2, 3, 6, 2 * patch, patch)
    got = pixel_view(patchify(pixels, tubelet, patch), grid, tubelet, patch)
    assert got.shape == (2, grid.tokens, pixel_values(tubelet, patch))
    mean, std = (torch.tensor(value).view(3, 1, 1, 1) for value in (IMAGE_MEAN, IMAGE_STD))
    blocks = ((pixels - mean) / std).unfold(3, size, size).unfold(4, size, size).mean((-1, -2))
    for token in range(grid.tokens):
        time, row = divmod(token, grid.rows)
        own, before, behind = (
            blocks[:, :, 2 * t : 2 * t + 2, row * cells : (row + 1) * cells].permute(0, 2, 3, 4, 1)
            for t in (time, max(0, time - 1), min(2, time + 1))
        )
        wanted = torch.cat([own, own - before, behind - own], dim=0)
        wanted = wanted.reshape(3, 2, -1).transpose(0, 1).flatten(1)
        assert torch.allclose(got[:, token], wanted, atol=1e-5)
