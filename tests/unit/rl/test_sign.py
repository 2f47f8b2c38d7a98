"""What the policy gradient means: the settings decide whether motion is shown or hidden.

A textured square moves over a static texture that is the same in all clips. A small autoencoder has
learned the background by heart, so only the square is hard to reconstruct.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from tats_ray.data.clips import Clips
from tats_ray.evaluation.held_out import token_cover
from tats_ray.training.mae_trainer import MAETrainer
from tats_ray.training.policy import build_in_process_policy
from tests.conftest import tiny_config

BATCH = 16
GEOMETRY = ["model.patch=8", "masking.ratio=0.75", "train.batch_size=16", "train.base_lr=0.08",
            "model.target.normalize=none", "rl.lr=3e-3", "rl.entropy_coefficient=0.0"]  # fmt: skip


@functools.cache
def _scenes() -> tuple[np.ndarray, np.ndarray]:
    """uint8 clips [64, 8, 32, 32, 3] and the square's mask."""
    rng = np.random.default_rng(0)
    background = rng.integers(90, 160, (32, 32, 3))
    clips = np.broadcast_to(background, (64, 8, 32, 32, 3)).copy()
    mask = np.zeros((64, 8, 32, 32), dtype=bool)
    for clip in range(64):
        square = rng.integers(0, 256, (8, 8, 3))
        place, speed = rng.integers(0, 24, 2), rng.integers(-3, 4, 2)
        for frame in range(8):
            row, column = np.clip(place + speed * frame, 0, 24)
            clips[clip, frame, row : row + 8, column : column + 8] = square
            mask[clip, frame, row : row + 8, column : column + 8] = True
    return clips.astype(np.uint8), mask


def _batch(first: int) -> Clips:
    rows = np.arange(first, first + BATCH) % 64
    return Clips(_scenes()[0][rows], np.ones(BATCH), rows, first)


@functools.cache
def _trained_mae() -> dict:
    config = tiny_config(*GEOMETRY)
    trainer = MAETrainer(config, torch.device("cpu"))
    for step in range(150):
        clips = _batch(step * BATCH)
        trainer.train_step(clips)  # at random: there is no policy yet
    return trainer.mae.state_dict()


def _motion_probability(settings: list[str], updates: int) -> float:
    """Policy mass on the square after PPO, relative to a uniform policy's."""
    config = tiny_config(*GEOMETRY, *settings)
    trainer = MAETrainer(config, torch.device("cpu"))
    trainer.mae.load_state_dict(_trained_mae())
    policy = build_in_process_policy(config, trainer.device, trainer.mae)
    for update in range(updates):
        clips = _batch(update * BATCH)
        policy.update(policy.roll_out(clips, update), clips, update)
    clips, mask = _scenes()
    cover = token_cover(torch.from_numpy(mask), config.model.tubelet, config.model.patch)
    tokens = policy.environment.observe(Clips(clips, np.ones(64), np.arange(64), 0))
    with torch.no_grad():
        probs = policy.sampler.log_probs(tokens).exp()
    return ((probs * cover).sum() / cover.mean(dim=1).sum()).item()


def test_only_the_square_is_hard():
    config = tiny_config(*GEOMETRY)
    trainer = MAETrainer(config, torch.device("cpu"))
    trainer.mae.load_state_dict(_trained_mae())
    environment = build_in_process_policy(config, trainer.device, trainer.mae).environment
    clips = _batch(0)
    environment.observe(clips)
    noise = environment.inputs.mask_noise(0, BATCH, trainer.device)
    targets, error = environment.score(noise.topk(config.visible, dim=1).indices)
    mask = torch.from_numpy(_scenes()[1][:BATCH])
    cover = token_cover(mask, config.model.tubelet, config.model.patch).gather(1, targets)
    assert error[cover > 0.2].mean() > 4 * error[cover == 0].mean()


GROUP = ["rl.credit_level=set", "rl.draws_per_clip=4", "rl.baseline=group", "rl.whiten=batch"]


@pytest.mark.parametrize(
    ("settings", "rises"),
    [
        (["rl.credit_level=token", "rl.log_prob_over=masked", "rl.reward_sign=1"], True),
        (["rl.credit_level=token", "rl.log_prob_over=masked", "rl.reward_sign=-1"], False),
        (["rl.credit_level=token", "rl.log_prob_over=visible", "rl.reward_sign=1"], True),
        ([*GROUP, "rl.log_prob_over=visible", "rl.reward_sign=-1"], True),
        ([*GROUP, "rl.log_prob_over=visible", "rl.reward_sign=1"], False),
    ],
    ids=["masked +error", "masked -error", "as visible", "visible -error", "visible +error"],
)
def test_motion_is_shown_or_hidden_as_configured(settings, rises):
    relative = _motion_probability(settings, updates=60)
    assert relative > 1.3 if rises else relative < 0.77
