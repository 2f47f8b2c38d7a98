"""Settings and data shared by all tests."""

from __future__ import annotations

import os

# Before torch is imported: two test processes on two cores must not fight over threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tats_ray.config import Config, load_config
from tats_ray.data.clips import Clips
from tats_ray.data.synthetic.generate import SyntheticSet, ensure_synthetic

# How long an example takes says nothing about the code on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A model and a set that train in milliseconds: 4 x 2 x 2 = 16 tokens.
TINY = [
    "run.name=test", "data.frames=8", "data.stride=1", "data.size=32", "data.stored_height=32",
    "data.stored_width=32", "data.augment.crop=full", "data.block_clips=4",
    "data.prefetch_blocks=8", "model.size=tiny", "model.width=24", "model.depth=2",
    "model.heads=2", "model.decoder.width=16", "model.decoder.depth=1", "model.decoder.heads=2",
    "masking.ratio=0.75", "masking.sampler.width=16", "masking.sampler.heads=2",
    "masking.sampler.reads=tokens", "masking.sampler.pool=1", "masking.slice_noise=0",
    "rl.rewards=workers",
    "rl.credit_level=token", "rl.log_prob_over=masked", "rl.reward=error", "rl.reward_sign=1",
    "rl.baseline=critic", "rl.whiten=clip", "rl.draws_per_clip=1", "rl.rollout_fraction=1.0",
    "rl.rollout_clips=4", "rl.lr=1e-3", "train.batch_size=8", "train.base_lr=0.03",
    "train.min_lr=0.003", "train.steps=12", "tracking.log_interval=2",
    "checkpoint.interval=4", "cluster.mode=serial",
    "data.synthetic.clips=20", "data.synthetic.held_out_clips=6", "data.synthetic.frames=12",
    "data.synthetic.size=32",
]  # fmt: skip


def tiny_config(*overrides: str) -> Config:
    return load_config(None, [*TINY, *overrides])


def random_clips(config: Config, count: int, first: int = 0, seed: int = 0) -> Clips:
    """Smooth random clips: noise would make every reconstruction error alike."""
    rng = np.random.default_rng(seed)
    data = config.data
    shape = (count, data.frames, data.stored_height, data.stored_width, 3)
    drift = np.cumsum(rng.integers(-6, 7, shape), axis=3) + rng.integers(
        60, 190, (count, 1, 1, 1, 1)
    )
    return Clips(
        np.clip(drift, 0, 255).astype(np.uint8), np.ones(count), first + np.arange(count), first
    )


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    """The tiny synthetic set, made once."""
    section = tiny_config().data.synthetic
    return ensure_synthetic(section, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real and odd videos that lie beside the checkout, where they do."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no shared data beside this checkout")
    return path
