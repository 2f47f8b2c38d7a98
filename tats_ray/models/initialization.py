"""Start weights, and the seed that decides them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def seeded(seed: int, build: Callable[[], Model]) -> Model:
    """A freshly built model, the same on every process for the same seed; torch's generator is
    afterwards as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def initialize(module: nn.Module) -> None:
    """VideoMAE's initialisation: Xavier for matrices, zero for biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
