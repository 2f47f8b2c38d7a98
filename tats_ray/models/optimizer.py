"""Optimisers, the learning-rate schedule, and the guard against non-finite updates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tats_ray.config.train import TrainSection


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


def learning_rate(section: TrainSection, step: int) -> float:
    """Linear warm-up from zero, then a half cosine to the final rate.

    Args:
        step: 0-based step that is about to be taken.
    """
    if step < section.warmup_steps:
        return section.lr * (step + 1) / section.warmup_steps
    span = max(1, section.steps - section.warmup_steps)
    progress = min(1.0, (step - section.warmup_steps) / span)
    fall = 0.5 * (1 + math.cos(math.pi * progress))
    return section.final_lr + (section.lr - section.final_lr) * fall


class GuardedOptimizer:
    """AdamW behind a guard: from the first non-finite gradient on, no step changes anything.

    The guard is a flag on the device, so nothing synchronises per step; whoever reads metrics
    reads `poisoned` with them and stops the run with the parameters as they were.
    """

    def __init__(self, optimizer: torch.optim.AdamW, gradient_clip: float | None) -> None:
        self.optimizer = optimizer
        self.gradient_clip = gradient_clip if gradient_clip is not None else math.inf
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.poisoned = torch.zeros((), device=self.parameters[0].device)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, lr: float) -> Tensor:
        """Clips the gradients and steps; returns their norm before clipping, on the device.

        Args:
            lr: rate of the groups without an `lr_scale`.
        """
        norm = nn.utils.clip_grad_norm_(self.parameters, self.gradient_clip)
        self.poisoned = torch.maximum(self.poisoned, (~torch.isfinite(norm)).float())
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)  # set by layer decay
        self.optimizer.found_inf = self.poisoned  # type: ignore[attr-defined]
        self.optimizer.step()
        return norm
