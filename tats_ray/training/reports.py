"""What a trainer tells and gives: plain records, which the hub passes on without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tats_ray.errors import Fault
from tats_ray.models.state import State


@dataclass(frozen=True)
class StepReport:
    """Metrics of a finished step; `step` counts finished steps, from 1.

    Attributes:
        skipped: what was left out of the step because it was not finite.
    """

    step: int
    metrics: dict[str, float]
    skipped: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class TrainerState:
    """Weights and optimiser of a trainer after `step` steps, as they travel and are stored.

    Attributes:
        files: tensors by the name of their safetensors file.
        documents: plain values by the name of their JSON file.
    """

    step: int
    files: dict[str, State]
    documents: dict[str, Any] = field(default_factory=dict)
