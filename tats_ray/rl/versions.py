"""Weights as they cross process boundaries: with the version that they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tats_ray.models.state import State


@dataclass(frozen=True)
class VersionedWeights:
    """A version number and where its weights are.

    `ref` is an object reference that was put once and is shared by all readers; inside this record
    Ray passes it on without fetching it.
    """

    version: int
    ref: Any


@dataclass(frozen=True)
class PolicyState:
    """Sampler (actor and critic) and its optimiser after `version` updates."""

    version: int
    sampler: State
    optimizer: State
