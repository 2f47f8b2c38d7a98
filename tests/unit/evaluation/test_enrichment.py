"""Motion enrichment: 1 for chance, N / k at best, and by hand in between."""

import numpy as np
import pytest
import torch

from tats_ray.data.ground_truth import load_ground_truth
from tats_ray.data.manifest import read_manifest
from tats_ray.evaluation.held_out import enrichment, load_held_out, token_cover
from tats_ray.evaluation.inspection import Inspector, random_enrichment
from tats_ray.training.checkpoint import RunState
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config


def test_cover_is_the_share_of_a_tokens_pixels():
    mask = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    mask[0, 0, 0, 0] = True  # one of the 8 pixels of token 0
    mask[0, 2:, 2:, 2:] = True  # all of the last token
    cover = token_cover(mask, tubelet=2, patch=2)
    assert cover.tolist() == [[0.125, 0, 0, 0, 0, 0, 0, 1.0]]


def test_by_hand():
    cover = torch.tensor([[1.0, 0.0, 0.5, 0.5]])
    assert enrichment(torch.tensor([[0, 2]]), cover) == pytest.approx(0.75 / 0.5)
    assert enrichment(torch.tensor([[1]]), cover) == 0
    assert enrichment(torch.tensor([[0, 1, 2, 3]]), cover) == pytest.approx(1)


def test_held_out_covers_follow_the_decoded_frames(synthetic):
    config = tiny_config("data.frames=4", "data.stride=2")
    held_out = load_held_out(config, str(synthetic.held_out), 4)
    row = read_manifest(synthetic.held_out).to_pylist()[2]
    moving, _ = load_ground_truth(row)
    # Middle window: 7 frames of 12, start int(.5 * 6) = 3.
    mask = torch.from_numpy(moving[[3, 5, 7, 9]])[None]
    wanted = token_cover(mask, config.model.tubelet, config.model.patch)
    assert torch.allclose(held_out.moving[2:3], wanted, atol=1e-5)
    assert len(held_out) == 4


def test_a_masker_that_knows_the_truth_is_enriched_and_random_is_not(synthetic):
    config = tiny_config()
    held_out = load_held_out(config, str(synthetic.held_out), 6)
    best = held_out.moving.topk(config.visible, dim=1).indices
    assert enrichment(best, held_out.moving) > 1.5
    draws = [
        random_enrichment(tiny_config(f"run.seed={seed}"), held_out).moving for seed in range(60)
    ]
    assert np.mean(draws) == pytest.approx(1.0, abs=0.05)


def test_inspection_reconstructs_and_shows_visible_tokens(synthetic):
    config = tiny_config("masking.system=random")
    held_out = load_held_out(config, str(synthetic.held_out), 2)
    state = RunState(MAETrainer(config, torch.device("cpu")).state(), None)
    seen = Inspector(config, state).inspect(held_out)
    error = seen.error.gather(1, seen.visible)
    assert torch.equal(error, torch.zeros_like(error))
    assert (seen.error > 0).sum() == 2 * (config.grid.tokens - config.visible)
    patches = MAETrainer(config, torch.device("cpu")).mae.patches
    same = (patches(seen.reconstruction) == patches(held_out.pixels)).flatten(2).all(2)
    assert same.gather(1, seen.visible).all()
