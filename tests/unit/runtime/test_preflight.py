"""The preflight refuses what Ray would wait for silently."""

import pytest

from tats_ray.errors import ResourceError
from tats_ray.runtime.cluster import preflight, resident_cpus
from tests.conftest import tiny_config


def test_a_fitting_run_gets_its_shares():
    shares = preflight(tiny_config("rl.env_runners=2", "train.workers=2"), cpus=2.5, gpus=0)
    assert (shares.runner_cpus, shares.train_cpus, shares.decode_cpus) == (0.5, 0.5, 0.5)
    assert shares.runner_gpus == shares.train_gpus == 0


def test_too_few_cpus_are_refused_with_the_numbers():
    config = tiny_config("rl.env_runners=3", "rl.learners=1", "train.workers=2")
    with pytest.raises(ResourceError) as caught:
        preflight(config, cpus=2, gpus=0)
    message = str(caught.value)
    assert "has 2 CPUs, this run needs 3.5" in message
    assert "2 Train workers x 0.5 + 3 env runners x 0.5 + 1 PPO learners x 0.5" in message


def test_fixed_maskers_need_no_runners():
    assert resident_cpus(tiny_config("masking.system=tube", "rl.env_runners=9")) == 0.5


@pytest.mark.parametrize(
    ("gpus", "share"), [(1, 0.5), (2, 1.0), (8, 1.0)], ids=["one is shared", "one each", "many"]
)
def test_gpus_are_divided(gpus, share):
    shares = preflight(tiny_config(), cpus=8, gpus=gpus)
    assert shares.train_gpus == shares.runner_gpus == share


def test_more_train_workers_than_gpus_are_refused():
    with pytest.raises(ResourceError, match=r"train\.workers=4 need a GPU each"):
        preflight(tiny_config("train.workers=4"), cpus=8, gpus=2)
    kinds = ("train_worker", "env_runner", "learner")
    on_cpu = [f"cluster.{kind}_gpus=0.0" for kind in kinds]
    assert preflight(tiny_config("train.workers=4", *on_cpu), cpus=8, gpus=2).train_gpus == 0
