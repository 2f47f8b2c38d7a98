"""`rl.rewards=training`: a step's own draws and errors are what the policy learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tats_ray.controller.loop import run_iterations
from tats_ray.errors import ConfigError
from tats_ray.models.samplers import TrajectorySampler
from tats_ray.training.mae_trainer import MAETrainer
from tats_ray.training.policy import build_environment, build_first_policy
from tats_ray.training.trainer import Masks
from tests.conftest import random_clips, tiny_config
from tests.iterations import Recorder, Training

CPU = torch.device("cpu")
OWN = ["rl.rewards=training", "masking.sampler.reads=pixels"]


def _sampler(config) -> TrajectorySampler:
    """One that prefers some tokens."""
    sampler = build_first_policy(config)
    torch.nn.init.normal_(sampler.actor_head.weight, generator=torch.Generator().manual_seed(0))
    return sampler


@pytest.mark.parametrize("reward", ["error", "copy_clipped_error"])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_step_scores_as_a_rollout_worker_would(reward, fraction):
    config = tiny_config(
        *OWN, f"rl.reward={reward}", f"model.decoder.target_fraction={fraction}",
        "data.augment.crop=multi_scale",
    )  # fmt: skip
    trainer, sampler = MAETrainer(config, CPU), _sampler(config)
    clips = random_clips(config, 4, first=24)
    environment = build_environment(config, CPU)
    environment.load(0, trainer.weights())
    view = environment.observe(clips)
    rollout = trainer.train_step(clips, Masks(None, sampler, 7))
    assert (rollout.first, rollout.policy_version, rollout.mae_version) == (24, 7, 0)
    assert torch.equal(rollout.view, view)
    assert torch.equal(rollout.old_log_probs, sampler.log_probs(view))
    targets, error = environment.score(rollout.visible[:, 0])
    assert torch.equal(rollout.targets[:, 0], targets)
    assert torch.allclose(rollout.error[:, 0], error, rtol=0, atol=1e-6)
    assert trainer.step == 1


def test_nothing_is_scored_in_warm_up_or_beside_rollout_workers():
    clips = random_clips(tiny_config(), 4)
    assert MAETrainer(tiny_config(*OWN), CPU).train_step(clips) is None
    config = tiny_config("masking.sampler.reads=pixels")
    visible = torch.arange(config.visible).expand(4, -1)
    assert MAETrainer(config, CPU).train_step(clips, Masks(visible, None, 0)) is None


def test_a_run_goes_on_from_its_state_as_if_undisturbed():
    config = tiny_config(*OWN, "masking.warmup_steps=2", "rl.epochs=2", "rl.minibatch_clips=4")
    whole = Training(config)
    half, wanted = whole.after(5), whole.after(8)
    continued = Training(config)
    continued.executor.load(half)
    continued.step = 5
    got = continued.after(8)
    assert got.policy.version == wanted.policy.version == 6
    for one, other in [
        (got.policy.sampler, wanted.policy.sampler),
        (got.policy.optimizer, wanted.policy.optimizer),
        (got.trainer.files["mae"], wanted.trainer.files["mae"]),
    ]:
        assert one.keys() == other.keys()
        assert all(np.array_equal(value, other[name]) for name, value in one.items())


def test_every_step_behind_the_warm_up_updates_the_policy():
    training = Training(tiny_config(*OWN, "masking.warmup_steps=2"))
    recorder = Recorder()
    run_iterations(training.executor, recorder, range(4))
    assert ["ppo/policy" in recorder.metrics[step] for step in (1, 2, 3, 4)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"set masking\.sampler\.reads=pixels"):
        tiny_config("rl.rewards=training")
    with pytest.raises(ConfigError, match=r"set rl\.draws_per_clip=1"):
        tiny_config(*OWN, "rl.draws_per_clip=2")
