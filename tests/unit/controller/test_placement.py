"""Settings of placement as options of Ray, and what the preflight says of nodes. No cluster."""

from __future__ import annotations

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.actors.cluster import Resources, preflight
from tats_ray.actors.placement import (
    Node,
    as_resources,
    check_placement,
    demands,
    living_nodes,
    matches,
    task_options,
)
from tats_ray.actors.ppo_algorithm import _algorithm_config
from tats_ray.actors.rllib_compat import rollout_workers_have_labels
from tats_ray.actors.rollout_worker import MaskingEnvRunner
from tats_ray.actors.train_run import train_scaling
from tats_ray.config.placement import Placement
from tats_ray.errors import ResourceError
from tests.conftest import tiny_config

SHARES = Resources(0.5, 1.0, 0.5, 1.0, 2.0, 1.0, 0.5)
FULL = Placement(accelerator="A100", resources={"rack": 2.0}, labels={"zone": "!b"})
BIG = Node({"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100": 1.0}, {"zone": "a"})
SMALL = Node({"CPU": 8.0, "GPU": 4.0, "accelerator_type:T4": 1.0, "rack": 1.0}, {"zone": "b"})


def _config(*settings):
    return tiny_config(
        "rl.rollout_workers=2", "train.workers=2", "rl.learners=0",
        *(f"cluster.placement.{setting}" for setting in settings),
    )  # fmt: skip


def _task():
    """For Ray to place; never run."""


def _refused(*settings, nodes):
    with pytest.raises(ResourceError) as caught:
        check_placement(_config(*settings), SHARES, nodes)
    return str(caught.value)


def test_options_are_those_that_ray_takes():
    assert task_options(None) == task_options(Placement()) == {}
    options = task_options(FULL)
    assert options == {
        "resources": {"rack": 2.0}, "label_selector": {"zone": "!b"}, "accelerator_type": "A100",
    }  # fmt: skip
    ray.remote(_task).options(**options)  # raises where Ray does not know one


def test_a_type_of_gpu_is_a_resource_where_nothing_else_can_be_passed():
    assert as_resources(None) == {}
    assert as_resources(FULL) == {"rack": 2.0, "accelerator_type:A100": 0.001}


def test_rllib_gets_resources_and_type_of_workers_and_learners():
    config = _config("rollout.resources={rack: 1}", "learner.accelerator=T4")
    rllib = _algorithm_config(config, SHARES, MaskingEnvRunner)
    assert rllib.custom_resources_per_env_runner == {"rack": 1.0}
    assert rllib.custom_resources_per_learner == {"accelerator_type:T4": 0.001}


def test_rllib_makes_its_workers_with_labels_while_it_is_told_to():
    from ray.rllib.algorithms import algorithm

    published = algorithm.EnvRunnerGroup
    with rollout_workers_have_labels({}):
        assert algorithm.EnvRunnerGroup is published
    with rollout_workers_have_labels({"zone": "a"}):
        assert issubclass(algorithm.EnvRunnerGroup, published)
        assert algorithm.EnvRunnerGroup is not published
    assert algorithm.EnvRunnerGroup is published


def test_ray_train_gets_shares_resources_type_and_labels():
    scaling = train_scaling(
        _config("train={accelerator: A100, resources: {rack: 1}, labels: {zone: a}}"), SHARES
    )
    assert scaling.num_workers == 2
    assert scaling.label_selector == {"zone": "a"}
    assert scaling.resources_per_worker == {
        "CPU": 2.0, "GPU": 1.0, "rack": 1.0, "accelerator_type:A100": 0.001,
    }  # fmt: skip
    plain = train_scaling(_config(), SHARES)
    assert plain.label_selector is None
    assert plain.resources_per_worker == {"CPU": 2.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("selector", "value", "does"),
    [
        ("a", "a", True), ("a", "b", False), ("a", None, False), ("!a", "a", False),
        ("!a", "b", True), ("!a", None, True), ("in(a, b)", "b", True), ("in(a,b)", "b", True),
        ("in(a, b)", "c", False), ("!in(a, b)", "c", True), ("!in(a, b)", "a", False),
    ],
)  # fmt: skip
def test_selectors_are_read_as_ray_reads_them(selector, value, does):
    assert matches(selector, value) is does


def test_every_kind_is_counted_with_what_each_takes():
    found = {kind.name: kind for kind in demands(_config("rollout.resources={rack: 1}"), SHARES)}
    assert {name: kind.number for name, kind in found.items()} == {
        "Train workers": 2, "rollout workers": 2, "decode tasks": 1,
    }  # fmt: skip
    assert found["rollout workers"].each == {"CPU": 0.5, "GPU": 1.0, "rack": 1.0}
    assert found["decode tasks"].each == {"CPU": 0.5, "GPU": 0.0}


def test_a_run_that_fits_is_let_through():
    check_placement(_config(), SHARES, [BIG])
    placed = ("train.accelerator=A100", "rollout.labels={zone: b}", "decode.labels={zone: '!a'}")
    check_placement(_config(*placed), SHARES, [BIG, SMALL])


def test_a_kind_that_no_node_can_run_is_named_with_its_setting():
    message = _refused("train.accelerator=H100", nodes=[BIG, SMALL])
    assert message == (
        "no node of the cluster can run one of the Train workers, each of which needs 2 CPU, "
        "1 GPU, 0.001 accelerator_type:H100; change cluster.placement.train or add such a node"
    )
    message = _refused("decode.labels={zone: c}", nodes=[BIG, SMALL])
    assert "the decode tasks, each of which needs 0.5 CPU, label zone=c; change" in message


def test_a_process_is_not_spread_over_two_nodes():
    halves = [Node({"CPU": 1.5, "GPU": 2.0}, {}), Node({"CPU": 1.5, "GPU": 2.0}, {})]
    assert "one of the Train workers, each of which needs 2 CPU" in _refused(nodes=halves)


def test_a_custom_resource_that_is_too_small_is_named_with_the_numbers():
    message = _refused("rollout.resources={rack: 1}", nodes=[BIG, SMALL])
    assert message == (
        "2 rollout workers need 2 rack, the nodes where they may run have 1; "
        "change cluster.placement.rollout, or lower their number"
    )


def test_two_kinds_on_the_same_nodes_are_counted_together():
    """Each kind alone fits on its 3 GPUs, and the cluster as a whole has enough."""
    few = Node({"CPU": 8.0, "GPU": 3.0}, {"zone": "a"})
    free = Node({"CPU": 8.0, "GPU": 4.0}, {"zone": "b"})
    at_a = ("train.labels={zone: a}", "rollout.labels={zone: a}")
    assert "2 Train workers + 2 rollout workers need 4 GPU" in _refused(*at_a, nodes=[few, free])
    check_placement(_config(at_a[0]), SHARES, [few, free])


@given(
    cpus=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    workers=st.integers(1, 4), runners=st.integers(1, 6),
)  # fmt: skip
def test_without_placement_it_refuses_only_what_cannot_be_packed(cpus, workers, runners):
    """On whole CPUs, packing processes of one CPU each is exact: the sums decide."""
    config = tiny_config(
        f"train.workers={workers}", f"train.batch_size={8 * workers}", "rl.learners=0",
        f"rl.rollout_workers={runners}", f"rl.rollout_clips={workers}",
        "cluster.train_worker_cpus=1.0", "cluster.rollout_worker_cpus=1.0",
        "cluster.decode_cpus=1.0",
    )  # fmt: skip
    nodes = [Node({"CPU": float(number)}, {}) for number in cpus]
    if workers + runners + 1 <= sum(cpus):
        check_placement(config, preflight(config, sum(cpus), 0), nodes)
    else:
        with pytest.raises(ResourceError):
            preflight(config, sum(cpus), 0)


def test_nodes_that_are_gone_do_not_count():
    found = [
        {"Alive": True, "Resources": {"CPU": 2.0}, "Labels": {"zone": "a"}},
        {"Alive": False, "Resources": {"CPU": 9.0}, "Labels": {}},
    ]
    assert living_nodes(found) == [Node({"CPU": 2.0}, {"zone": "a"})]
