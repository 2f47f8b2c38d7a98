"""Where processes run: settings as options of Ray, and whether the nodes have room for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, NamedTuple, TypedDict

from tats_ray.actors.cluster import Resources
from tats_ray.config.job import JobConfig
from tats_ray.config.placement import Placement
from tats_ray.errors import ResourceError

_ANYWHERE = Placement()
# Every node with GPUs of a type has 1 of this, and Ray's option `accelerator_type` takes so much.
_TYPE_SHARE = 0.001


class TaskOptions(TypedDict, total=False):
    """Options of Ray's tasks and actors, and of Ray Data's operators."""

    resources: dict[str, float]
    label_selector: dict[str, str]
    accelerator_type: str


class Node(NamedTuple):
    """What a node of the cluster has in all."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]


class Demand(NamedTuple):
    """Processes of one kind that are there at once."""

    name: str
    setting: str
    number: int
    each: Mapping[str, float]
    labels: Mapping[str, str]

    def fits(self, node: Node) -> bool:
        """Whether one of them could run on the node if it were empty."""
        return all(
            matches(selector, node.labels.get(key)) for key, selector in self.labels.items()
        ) and all(node.resources.get(name, 0.0) >= amount for name, amount in self.each.items())


def task_options(place: Placement | None) -> TaskOptions:
    """For tasks and actors that are placed by options of their own."""
    options: TaskOptions = {}
    if place is not None and place.resources:
        options["resources"] = place.resources
    if place is not None and place.labels:
        options["label_selector"] = place.labels
    if place is not None and place.accelerator is not None:
        options["accelerator_type"] = place.accelerator
    return options


def as_resources(place: Placement | None) -> dict[str, float]:
    """For what takes resources only: a GPU's type is one of those."""
    place = place or _ANYWHERE
    if place.accelerator is None:
        return dict(place.resources)
    return {**place.resources, f"accelerator_type:{place.accelerator}": _TYPE_SHARE}


def matches(selector: str, value: str | None) -> bool:
    """Whether a label's value is what Ray's selector asks for: `v`, `!v`, `in(a, b)`, `!in(a, b)`.

    A missing label has no value: it is none of those that are excluded.
    """
    wanted = selector.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", wanted)
    values = [wanted] if listed is None else re.split(r", ?", listed[1])
    return (value in values) != selector.startswith("!")


def demands(config: JobConfig, shares: Resources) -> list[Demand]:
    """What a run has on the cluster at once; of decode tasks at least one."""
    place, cluster = config.cluster.placement, "cluster.placement"
    kinds = [
        ("Train workers", f"{cluster}.train", config.train.workers, place.train,
         shares.train_cpus, shares.train_gpus),
        ("rollout workers", f"{cluster}.rollout", config.rollout_workers, place.rollout,
         shares.runner_cpus, shares.runner_gpus),
        ("PPO learners", f"{cluster}.learner", config.remote_learners, place.learner,
         shares.learner_cpus, shares.learner_gpus),
        ("decode tasks", f"{cluster}.decode", 1, place.decode, shares.decode_cpus, 0.0),
    ]  # fmt: skip
    return [
        Demand(
            name,
            setting,
            count,
            {"CPU": cpus, "GPU": gpus} | as_resources(where),
            (where or _ANYWHERE).labels,
        )
        for name, setting, count, where, cpus, gpus in kinds
        if count
    ]


def check_placement(config: JobConfig, shares: Resources, nodes: list[Node]) -> None:
    """Checks that the nodes on which processes may run have room for all of them.

    Necessary, and enough wherever processes are small beside nodes: for every choice of kinds, what
    they need is compared with what the nodes that any of them may use have in all.

    Raises:
        ResourceError: with what is needed by whom, and what there is.
    """
    kinds = demands(config, shares)
    for kind in kinds:
        if not any(kind.fits(node) for node in nodes):
            raise ResourceError(
                f"no node of the cluster can run one of the {kind.name}, each of which needs "
                f"{_listed(kind)}; change {kind.setting} or add such a node"
            )
    for size in range(1, len(kinds) + 1):
        for chosen in combinations(kinds, size):
            _check_room(chosen, nodes)


def _check_room(chosen: tuple[Demand, ...], nodes: list[Node]) -> None:
    """Compares what these kinds need together with the nodes that any of them may use."""
    usable = [node for node in nodes if any(kind.fits(node) for kind in chosen)]
    for name in sorted({name for kind in chosen for name in kind.each}):
        needed = sum(kind.number * kind.each.get(name, 0.0) for kind in chosen)
        there = sum(node.resources.get(name, 0.0) for node in usable)
        if needed > there + 1e-6:
            parts = " + ".join(f"{kind.number} {kind.name}" for kind in chosen)
            raise ResourceError(
                f"{parts} need {needed:g} {name}, the nodes where they may run have {there:g}; "
                f"change {' or '.join(kind.setting for kind in chosen)}, or lower their number"
            )


def _listed(kind: Demand) -> str:
    amounts = [f"{amount:g} {name}" for name, amount in kind.each.items() if amount]
    labels = [f"label {key}={selector}" for key, selector in kind.labels.items()]
    return ", ".join(amounts + labels)


def living_nodes(found: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Nodes as `ray.nodes()` lists them, without those that are gone."""
    return [Node(dict(node["Resources"]), dict(node["Labels"])) for node in found if node["Alive"]]


def cluster_nodes() -> list[Node]:
    """Nodes of the connected cluster."""
    import ray

    return living_nodes(ray.nodes())
