"""The preflight refuses what Ray would wait for silently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.actors.cluster import preflight, resident_cpus
from tats_ray.actors.object_store import store_warning
from tats_ray.errors import ResourceError
from tests.conftest import tiny_config


def test_a_fitting_run_gets_its_shares():
    shares = preflight(tiny_config("rl.rollout_workers=2", "train.workers=2"), cpus=2.5, gpus=0)
    assert (shares.runner_cpus, shares.train_cpus, shares.decode_cpus) == (0.5, 0.5, 0.5)
    assert shares.runner_gpus == shares.train_gpus == 0


def test_too_few_cpus_are_refused_with_the_numbers():
    config = tiny_config("rl.rollout_workers=3", "rl.learners=1", "train.workers=2")
    with pytest.raises(ResourceError) as caught:
        preflight(config, cpus=2, gpus=0)
    message = str(caught.value)
    assert "has 2 CPUs, this run needs 3.5" in message
    assert "2 Train workers x 0.5 + 3 rollout workers x 0.5 + 1 PPO learners x 0.5" in message


def test_fixed_maskers_need_no_runners():
    assert resident_cpus(tiny_config("masking.system=tube", "rl.rollout_workers=9")) == 0.5


@pytest.mark.parametrize(
    ("gpus", "train", "rl"), [(1, 0.6, 0.4), (2, 1.0, 1.0), (8, 1.0, 1.0)],
    ids=["one is shared", "one each", "many"],
)  # fmt: skip
def test_gpus_are_divided(gpus, train, rl):
    shares = preflight(tiny_config(), cpus=8, gpus=gpus)
    assert (shares.train_gpus, shares.runner_gpus) == (train, rl)


@given(workers=st.integers(1, 8), runners=st.integers(1, 40), spare=st.integers(0, 50))
def test_shared_gpus_hold_everyone(workers, runners, spare):
    """Whole actors fit: no share is split over two GPUs, and no two Train workers meet on one."""
    gpus = workers + spare
    config = tiny_config(
        f"train.workers={workers}", f"train.batch_size={8 * workers}",
        f"rl.rollout_workers={runners}", f"rl.rollout_clips={workers}",
    )  # fmt: skip
    shares = preflight(config, cpus=1000, gpus=gpus)
    assert shares.train_gpus > 0.5
    room = gpus * [1.0]
    for place in range(workers):
        room[place] -= shares.train_gpus
    for _ in range(runners):
        place = max(range(gpus), key=room.__getitem__)
        room[place] -= shares.runner_gpus
        assert room[place] > -1e-9


def test_more_train_workers_than_gpus_are_refused():
    with pytest.raises(ResourceError, match=r"train\.workers=4 need a GPU each"):
        preflight(tiny_config("train.workers=4"), cpus=8, gpus=2)
    on_cpu = tiny_config("train.workers=4", "cluster.train_worker_gpus=0.0")
    shares = preflight(on_cpu, cpus=8, gpus=2)
    assert shares.train_gpus == shares.runner_gpus == shares.learner_gpus == 0


def test_too_small_an_object_store_is_told_with_the_numbers():
    """12 steps of 8 clips and 17 blocks of 4, of 24 KiB each, and 16 copies of the weights, in 80 %
    of the store."""
    config = tiny_config("cluster.mode=local", "train.snapshot_interval=7")
    needed = ((12 * 8 + 17 * 4) * 24 * 2**10 + 16 * 4 * 100_000) / 0.8
    assert store_warning(config, 100_000, needed + 1) is None
    warning = store_warning(config, 100_000, needed - 1)
    assert warning is not None
    assert "up to 164 decoded clips of 0.02 MiB and 16 copies of 0.1 M weights" in warning
    assert "cluster.object_store_mb=13, a smaller train.snapshot_interval (now 7)" in warning
