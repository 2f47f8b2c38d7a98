"""Private names of Ray Train 2.60, each with the reason why no public one does."""

from __future__ import annotations

import time

import ray
from ray._raylet import PlacementGroupID
from ray.actor import ActorHandle
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import create_scaling_policy
from ray.train.v2._internal.util import ObjectRefWrapper
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_REMOVAL_SECONDS = 10.0


def start_controller(trainer: TorchTrainer) -> ActorHandle:
    """The actor that `trainer.fit` starts and waits for: its `run` ends with the Train run, its
    `get_result` then holds the error.

    `fit` keeps the actor to itself, so that nobody could end a run whose hub is lost, and it would
    compete for CPUs with the next one. Its cleaner of placement groups is left out: a process that
    outlives the run, and where there is no dashboard neither cleans nor ends.
    """
    here = ray.get_runtime_context().get_node_id()
    controller = ray.remote(
        num_cpus=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        runtime_env={"env_vars": get_env_vars_to_propagate()},
    )(TrainController)
    return controller.remote(
        train_fn_ref=ObjectRefWrapper(trainer._get_train_func()),
        train_run_context=trainer.train_run_context,
        scaling_policy=create_scaling_policy(trainer.scaling_config),
        failure_policy=create_failure_policy(trainer.run_config.failure_config),
        callbacks=[
            callback
            for callback in trainer._create_default_callbacks()
            if not isinstance(callback, PlacementGroupCleanerCallback)
        ],
    )


def remove_placement_groups() -> None:
    """Frees what this job's Train runs have reserved, and ends what is left in it.

    A group outlives the controller that made it, where that one was killed or failed at a start.
    Ray's table of groups does not say who made them, but an id ends with that of its job, and in
    a job of ours nothing else makes any.
    """
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while (left := _placement_groups()) and time.monotonic() < deadline:
        for group in left:
            remove_placement_group(group)
        time.sleep(0.1)


def _placement_groups() -> list[PlacementGroup]:
    job = ray.get_runtime_context().get_job_id()
    return [
        PlacementGroup(PlacementGroupID(bytes.fromhex(name)))
        for name, group in placement_group_table().items()
        if name.endswith(job) and group["state"] != "REMOVED"
    ]
