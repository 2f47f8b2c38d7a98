"""On which nodes of a cluster the processes of each kind may run."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from tats_ray.config.settings import Settings

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"(?:{_NAME}/)?{_NAME}")
_VALUE = re.compile(rf"!?(?:{_NAME}|in\({_NAME}(?:, ?{_NAME})*\))")
_LEAST = 1e-4  # what Ray counts in
# What Ray counts by itself, and the remedy.
_COUNTED = {
    "CPU": "set cluster.*_cpus",
    "GPU": "set cluster.train_worker_gpus",
    "memory": "leave it out",
    "object_store_memory": "leave it out",
}


class Placement(Settings):
    """What a node must have for a process of one kind to run there."""

    accelerator: str | None = Field(None, pattern=rf"^{_NAME}$")
    """Type of its GPUs as Ray names it, such as A100; empty: any."""
    resources: dict[str, float] = Field({})
    """Custom resources that each process takes, by name."""
    labels: dict[str, str] = Field({})
    """Labels of the node: a value, !value, in(a, b) or !in(a, b)."""

    @field_validator("resources")
    @classmethod
    def resources_are_custom(cls, resources: dict[str, float]) -> dict[str, float]:
        for name, amount in resources.items():
            if name in _COUNTED:
                raise ValueError(f"'{name}' is no custom resource; {_COUNTED[name]}")
            if not name or ":" in name:
                raise ValueError(f"'{name}' is no name of a custom resource; leave out any colon")
            if amount < _LEAST:
                raise ValueError(f"{name} is {amount:g}; a process takes at least {_LEAST:g} of it")
        return resources

    @field_validator("labels")
    @classmethod
    def labels_can_be_matched(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not _LABEL.fullmatch(key):
                raise ValueError(f"'{key}' is no label; write name or prefix/name")
            if not _VALUE.fullmatch(value):
                raise ValueError(
                    f"'{value}' is no value of label {key}; write value, !value, in(a, b) or "
                    "!in(a, b)"
                )
        return labels


class PlacementSettings(Settings):
    """For mode address; empty: any node."""

    rollout: Placement | None = None
    """Nodes of rollout workers, such as {accelerator: A100, resources: {x: 1}, labels: {k: v}}."""
    learner: Placement | None = None
    """Nodes of PPO learners outside the driver, without labels."""
    train: Placement | None = None
    """Nodes of Train workers."""
    decode: Placement | None = None
    """Nodes of decode tasks."""

    @field_validator("learner")
    @classmethod
    def learners_have_no_labels(cls, learner: Placement | None) -> Placement | None:
        if learner is not None and learner.labels:
            raise ValueError("RLlib cannot pass labels to learners; use resources or accelerator")
        return learner
