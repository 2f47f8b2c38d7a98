"""Optimisers, the learning-rate schedule, and the guard against non-finite updates."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tats_ray.config.train import Schedule
from tats_ray.errors import Fault, NonFiniteError
from tats_ray.models.numerics import OwnGradients, nonfinite
from tats_ray.models.state import State, load_optimizer_state, optimizer_state

_SKIPPED = "guard/skipped"  # beside the moments in a stored state


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms, the mask token and positions do not."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    exempt = [p for name, p in named if p.ndim < 2 or name.endswith("positions")]
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith("positions")]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]


def build_adamw(
    model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW in one fused kernel; its `found_inf` input lets a bad step be skipped on the device."""
    groups = parameter_groups(model, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def learning_rate(schedule: Schedule, step: int) -> float:
    """The rate of the step that is about to be taken (0-based): warm-up, then a half cosine."""
    peak, final, warmup_steps, steps = schedule
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    fall = 0.5 * (1 + math.cos(math.pi * progress))
    return final + (peak - final) * fall


class WeightAverage:
    """Exponential moving average of a model's weights (Polyak and Juditsky 1992).

    Attributes:
        model: a copy of the model with the averaged weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._mix = get_ema_multi_avg_fn(decay)

    def update(self, model: nn.Module) -> None:
        """Takes in the model's weights behind a step; nothing synchronises."""
        mine, theirs = list(self.model.parameters()), list(model.parameters())
        self._mix(mine, [weights.detach() for weights in theirs], 0)


class GuardedOptimizer:
    """AdamW behind a guard: a step whose gradient is not finite changes nothing, and behind
    `skip_limit` such steps the next one ends it: from there on no step changes anything.

    The guard is a count on the device that turns optimiser steps into no-ops, so nothing
    synchronises per step. Whoever reads the metrics reads the norms with them, counts `skipped`,
    and stops the run with the parameters as they were.

    Attributes:
        own_fault: scalar on the device, 1.0 where this rank's own gradient of the last step was not
            finite, before the ranks' were averaged.
        skipped: steps that were left out, as far as metrics have been read.
    """

    def __init__(
        self, optimizer: torch.optim.AdamW, gradient_clip: float | None, skip_limit: int = 0
    ) -> None:
        self.optimizer = optimizer
        self.gradient_clip = gradient_clip if gradient_clip is not None else math.inf
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device
        self.skip_limit = skip_limit
        self.skipped = 0
        self._bad_steps = torch.zeros((), device=self.device)
        self.own_fault = torch.zeros((), device=self.device)
        self._own: OwnGradients | None = None

    def watch(self, model: nn.Module) -> None:
        """Tells this rank's faults from those of other ranks, where the model is data-parallel."""
        if isinstance(model, DistributedDataParallel):
            self._own = OwnGradients(model, self.device)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, lr: float) -> Tensor:
        """Clips the gradients and steps; returns their norm before clipping, on the device.

        Args:
            lr: rate of the groups without an `lr_scale`.
        """
        norm = nn.utils.clip_grad_norm_(self.parameters, self.gradient_clip)
        bad = nonfinite(norm)
        self.own_fault = bad if self._own is None else self._own.take()
        self._bad_steps = self._bad_steps + bad
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)  # set by layer decay
        ended = (self._bad_steps > self.skip_limit).float()
        self.optimizer.found_inf = torch.maximum(bad, ended)  # type: ignore[attr-defined]
        self.optimizer.step()
        return norm

    def skip(self, fault: Fault, count: int, remedy: str) -> Fault:
        """Counts steps that were left out.

        Raises:
            NonFiniteError: they are too many; names the fault, and the remedy.
        """
        self.skipped += count
        if self.skipped > self.skip_limit:
            raise NonFiniteError(f"{fault.what}; no update was applied; {remedy}", fault.clips)
        return fault

    def state(self, model: nn.Module) -> State:
        """Moments by the names of the model's weights, and the count of skipped steps if any."""
        moments = optimizer_state(model, self.optimizer)
        skipped = self._bad_steps.cpu().numpy()
        return moments | {_SKIPPED: skipped} if skipped else moments

    def load(self, model: nn.Module, state: State) -> None:
        """Continues from a state.

        Raises:
            CheckpointError: it is of another model.
        """
        moments = {name: value for name, value in state.items() if name != _SKIPPED}
        load_optimizer_state(model, self.optimizer, moments)
        self.skipped = int(state.get(_SKIPPED, 0))
        self._bad_steps = torch.full_like(self._bad_steps, self.skipped)
