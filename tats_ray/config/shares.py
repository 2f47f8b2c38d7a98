"""Resources of one actor or task of each kind, as settled for a cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """CPUs and GPUs each."""

    runner_cpus: float
    runner_gpus: float
    learner_cpus: float
    learner_gpus: float
    train_cpus: float
    train_gpus: float
    decode_cpus: float
