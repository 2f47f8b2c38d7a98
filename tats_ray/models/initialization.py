"""Start weights, and the seed that decides them.

They are those of VideoMAE's code, which AdaMAE's and TrackMAE's have taken over. It initialises the
linear layers inside encoder and decoder (`initialize`) and leaves the two layers around them as
PyTorch makes them, uniform in +-1 / sqrt(inputs): the patch embedding, because it is a convolution,
and the embedding into the decoder, because nothing visits it.
"""

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
    """Xavier for the matrices of a module's linear layers, zero for their biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
