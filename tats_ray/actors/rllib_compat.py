"""Private names of RLlib 2.60, each with the reason why no public one does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.exceptions import RayActorError
from ray.rllib.algorithms import algorithm
from ray.rllib.core.learner import learner_group
from ray.rllib.core.learner.learner import Learner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.actor_manager import FaultTolerantActorManager

from tats_ray.actors.file_rendezvous import FileRendezvousConfig


@contextmanager
def learners_meet_in_a_file() -> Iterator[None]:
    """Around whatever starts learners that are all on this machine.

    RLlib has no setting for how its learners meet: it asks a function of its module.
    """
    published = learner_group._get_backend_config
    learner_group._get_backend_config = lambda learner_class: FileRendezvousConfig(share_gpus=False)
    try:
        yield
    finally:
        learner_group._get_backend_config = published


@contextmanager
def rollout_workers_have_labels(labels: Mapping[str, str]) -> Iterator[None]:
    """Around the start of an Algorithm: its rollout workers, and those that are added or restarted
    later, run on nodes with these labels only.

    RLlib has settings for the resources of its workers, and none for labels. It takes the class of
    their group by its name in a module.
    """
    published = algorithm.EnvRunnerGroup

    class OnLabelledNodes(published):  # type: ignore[misc, valid-type]
        def _make_worker(self, **arguments: Any) -> Any:
            self._remote_args["label_selector"] = dict(labels)
            return super()._make_worker(**arguments)

    algorithm.EnvRunnerGroup = OnLabelledNodes if labels else published
    try:
        yield
    finally:
        algorithm.EnvRunnerGroup = published


def lost_at_start(error: BaseException) -> RayActorError | None:
    """The death of an actor behind an error that RLlib raised while it started actors, if it was
    one. What starts learners tries to raise the error of a retry that is switched off, and raises
    a TypeError in its place."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, RayActorError):
        seen = seen.__cause__ or seen.__context__
    return seen


def actor_manager(group: EnvRunnerGroup) -> FaultTolerantActorManager:
    """What calls the rollout workers. The group's public calls hide which one failed, and why."""
    return group._worker_manager


def learner_rank(learner: Learner) -> int:
    """The learner's place among all; RLlib tells it to the learner and to nobody else."""
    return learner._learner_index
