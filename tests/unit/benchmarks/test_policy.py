"""What is timed of a sampler and of a rollout; the times are not a matter of tests."""

from __future__ import annotations

import pytest

from tats_ray.benchmarks.policy import measure_rollouts, measure_sampler
from tats_ray.errors import ConfigError
from tats_ray.training.pretraining_model import build_policy
from tests.conftest import tiny_config

OWN_ERRORS = ["rl.rewards=training", "masking.sampler.reads=pixels"]


@pytest.mark.parametrize("overrides", [[], OWN_ERRORS], ids=["tokens", "pixels"])
def test_a_sampler_is_timed_in_its_parts(overrides):
    config = tiny_config(*overrides)
    figures = measure_sampler(config, 2)
    assert list(figures) == ["view", "draw", "update", "parameters"]
    assert all(figures[part].value > 0 for part in ("view", "draw", "update"))
    size = sum(weights.numel() for weights in build_policy(config).parameters())
    assert figures["parameters"].value == pytest.approx(size / 1e6)


def test_rollouts_are_timed_per_draw():
    figures = measure_rollouts(tiny_config("rl.draws_per_clip=3"), 2)
    assert figures["rollout"].unit == "s/draw"
    assert figures["rollout"].value > 0


@pytest.mark.parametrize("measure", [measure_sampler, measure_rollouts])
def test_a_system_without_rollouts_is_refused(measure):
    with pytest.raises(ConfigError, match="tube has no sampler that rollouts train"):
        measure(tiny_config("masking.system=tube"), 1)
