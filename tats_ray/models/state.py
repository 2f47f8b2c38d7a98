"""Weights and optimiser state as flat name -> numpy array, the form that travels and is stored.

It imports PyTorch where a model is at hand: the hub passes states on without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tats_ray.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

State = dict[str, np.ndarray]

_STEPS = "step"
_MOMENTS = (_STEPS, "exp_avg", "exp_avg_sq")  # what AdamW keeps for every weight


@dataclass(frozen=True)
class VersionedWeights:
    """A version number and where its weights are.

    `ref` is an object reference that was put once and is shared by all readers; inside this record
    Ray passes it on without fetching it.
    """

    version: int
    ref: Any


def model_state(model: nn.Module) -> State:
    """A copy of the weights on the CPU."""
    return {name: _to_numpy(value) for name, value in model.state_dict().items()}


def load_model_state(model: nn.Module, state: Mapping[str, np.ndarray]) -> None:
    """Sets weights by name.

    Raises:
        CheckpointError: names the first weight that is missing, foreign, or of another shape or
            type; the model is as it was.
    """
    own = model.state_dict()
    for name in sorted(own.keys() ^ state.keys()):
        kind = "is missing" if name in own else "does not belong to this model"
        raise CheckpointError(f"weight '{name}' {kind}; the checkpoint is of another model")
    for name, value in own.items():
        if tuple(value.shape) != state[name].shape:
            raise CheckpointError(
                f"weight '{name}' has shape {state[name].shape}, the model needs "
                f"{tuple(value.shape)}; check the sizes in the configuration"
            )
        if np.issubdtype(state[name].dtype, np.floating) != value.is_floating_point():
            raise CheckpointError(
                f"weight '{name}' is of type {state[name].dtype}, the model needs {value.dtype}; "
                "the checkpoint is of another model"
            )
    import torch

    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """AdamW's moments and step counts, keyed `<parameter>/<moment>`."""
    return {
        f"{name}/{key}": _to_numpy(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, np.ndarray]
) -> None:
    """Sets the moments; `state` is empty where no step has been taken yet.

    Raises:
        CheckpointError: names the first moment that is missing, foreign or misshapen.
    """
    by_name = dict(model.named_parameters())
    stepped = {name for name in by_name if any(f"{name}/{m}" in state for m in _MOMENTS)}
    wanted = {f"{name}/{moment}" for name in stepped for moment in _MOMENTS}
    for key in sorted(wanted ^ state.keys()):
        kind = "is missing" if key in wanted else "does not belong to this model"
        raise CheckpointError(f"optimiser state '{key}' {kind}; the checkpoint is of another model")
    import torch

    for key, value in state.items():
        name, moment = key.rsplit("/", 1)
        parameter = by_name[name]
        shape = () if moment == _STEPS else tuple(parameter.shape)
        if value.shape != shape:
            raise CheckpointError(f"optimiser state '{key}' has shape {value.shape}, not {shape}")
        tensor = torch.from_numpy(np.array(value))  # the optimiser updates it in place
        optimizer.state[parameter][moment] = tensor.to(parameter.device)


def _to_numpy(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().copy()
