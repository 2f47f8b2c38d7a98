"""PPO's learners start from the policy of an earlier run."""

from __future__ import annotations

from safetensors.numpy import save_file

from tats_ray.actors.ppo_learner import SamplerModule
from tats_ray.models.state import model_state
from tats_ray.training.pretraining_model import build_policy
from tests.conftest import tiny_config


def test_a_learner_starts_from_the_policy_of_a_run(tmp_path):
    wanted = model_state(build_policy(tiny_config("run.seed=5")))
    save_file(wanted, tmp_path / "sampler.safetensors")
    (tmp_path / "progress.json").touch()  # marks a checkpoint
    config = tiny_config(f"train.initial_weights={tmp_path}")
    module = SamplerModule(model_config={"config": config.model_dump()})
    got = model_state(module.sampler)
    assert all((got[name] == value).all() for name, value in wanted.items())
