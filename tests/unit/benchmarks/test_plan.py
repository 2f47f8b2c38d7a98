"""What a run needs, against sums by hand and against published costs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tats_ray.benchmarks.plan import PEAKS, plan_run
from tats_ray.config import load_config
from tats_ray.controller.step_cost import step_flops
from tats_ray.errors import ConfigError
from tests.conftest import tiny_config

ROOT = Path(__file__).resolve().parents[3]
MACHINE = {"gpu": "a100", "gpus": 4, "utilization": 0.25, "decode_seconds": 0.02}
OWN_ERRORS = ["rl.rewards=training", "masking.sampler.reads=pixels"]


def test_needs_follow_from_the_operations_of_a_step():
    config = tiny_config("masking.system=tube")
    needs = plan_run(config, 1000, **MACHINE)
    per_clip = step_flops(config) / config.train.batch_size
    assert needs.operations == pytest.approx(1000 * per_clip)
    assert needs.gpu_hours == pytest.approx(1000 * per_clip / (0.25 * 312e12) / 3600)
    assert needs.decode_cores == math.ceil(4 * 0.25 * 312e12 / per_clip * 0.02)
    assert needs.rollout_gpus == 0


def test_rollouts_of_workers_need_gpus_of_their_own():
    workers = plan_run(tiny_config(), 1000, **MACHINE)
    none = plan_run(tiny_config("masking.system=random"), 1000, **MACHINE)
    own = plan_run(tiny_config(*OWN_ERRORS), 1000, **MACHINE)
    assert workers.rollout_gpus == pytest.approx(workers.operations / none.operations - 1)
    assert workers.decode_cores == none.decode_cores, "those that train set the pace"
    assert own.rollout_gpus == 0
    assert none.gpu_hours < own.gpu_hours < workers.gpu_hours


def test_one_decode_of_several_crops_costs_one():
    configs = [tiny_config("data.repeats=2", f"data.crops={count}") for count in (1, 2)]
    once, twice = (plan_run(config, 1000, **MACHINE) for config in configs)
    assert twice.decode_cores == pytest.approx(once.decode_cores / 2, abs=1)


def test_an_unknown_gpu_is_named():
    with pytest.raises(ConfigError, match="--gpu: 'p100' is unknown; known here: v100"):
        plan_run(tiny_config(), 1, **MACHINE | {"gpu": "p100"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpu", "utilization", "hours"), [("v100", 0.05, 1728), ("a5000", 0.17, 583)]
)
def test_published_costs_of_800_epochs_of_kinetics(gpu, utilization, hours):
    """VideoMAE's and AVION's, ViT-B; what is assumed of a GPU is theirs, the rest follows."""
    recipe = ROOT / "configs" / "recipes" / "videomae_k400.yaml"
    config = load_config(str(recipe), ["train.batch_size=1", "train.workers=1"])
    assert gpu in PEAKS
    machine = {"gpu": gpu, "gpus": 8, "utilization": utilization, "decode_seconds": 0.05}
    needs = plan_run(config, 240_000 * 800, **machine)
    assert needs.gpu_hours == pytest.approx(hours, rel=0.05)
