"""The PPO update of the sampler: one function for RLlib's Learner and for serial mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tats_ray.config.rl import RLSettings
from tats_ray.errors import Fault
from tats_ray.models.numerics import Ranks, autocast, locate, spread
from tats_ray.models.optimizer import GuardedOptimizer
from tats_ray.models.samplers import PolicyOutput, TrajectorySampler
from tats_ray.rl.ppo import PPOBatch, compute_advantages, ppo_loss, weigh_as_visible
from tats_ray.rl.rollout import Rollout

Policy = Callable[[Tensor], PolicyOutput]  # patch tokens [B, N, d] -> log-probs and value


@dataclass(frozen=True)
class UpdateTrace:
    """What the minibatches of one update left on the device, one entry per minibatch."""

    losses: list[dict[str, Tensor]]  # the parts of `PPOLoss` that there are
    norms: list[Tensor]  # of the gradient before clipping
    own_faults: list[Tensor]  # as `GuardedOptimizer.own_fault`


@dataclass(frozen=True)
class UpdateSummary:
    """Metrics by name, and what was left out of the update because it was not finite."""

    metrics: dict[str, float]
    skipped: list[Fault] = field(default_factory=list)


@torch.no_grad()
def build_ppo_batch(
    sampler: TrajectorySampler,
    tokens: Tensor,
    rollout: Rollout,
    settings: RLSettings,
    precision: str,
) -> PPOBatch:
    """A rollout's numbers on the device, with advantages against the critic as it is now.

    Args:
        tokens: [B, N, d], the policy's state of the clips.
    """
    device, value = tokens.device, None
    if settings.baseline == "critic":
        with autocast(precision, device):
            value = sampler.value(tokens)
    rollout = rollout.to(device)
    advantages = compute_advantages(rollout.error, value, settings)
    advantage = advantages.advantage
    if settings.credit_level == "token" and settings.log_prob_over == "visible":
        advantage = weigh_as_visible(advantage, rollout.old_log_probs, rollout.targets)
    return PPOBatch(
        tokens=tokens,
        old_log_probs=rollout.old_log_probs,
        visible=rollout.visible,
        targets=rollout.targets,
        advantage=advantage,
        value_target=advantages.value_target,
    )


def ppo_update(
    policy: Policy,
    optimizer: GuardedOptimizer,
    batch: PPOBatch,
    settings: RLSettings,
    *,
    minibatch_clips: int,
) -> UpdateTrace:
    """`rl.epochs` passes over the batch in contiguous minibatches; nothing synchronises.

    Args:
        policy: the sampler; data-parallel where several learners update together, each on its own
            minibatches.
        minibatch_clips: clips of one minibatch of this learner.
    """
    trace = UpdateTrace([], [], [])
    starts = range(0, len(batch.tokens), minibatch_clips)
    for start in list(starts) * settings.epochs:
        minibatch = PPOBatch(*(column[start : start + minibatch_clips] for column in batch))
        loss = ppo_loss(policy(minibatch.tokens), minibatch, settings)
        optimizer.zero_grad()
        spread(loss.total).backward()
        trace.norms.append(optimizer.step(settings.lr))
        trace.own_faults.append(optimizer.own_fault)
        parts = loss._asdict().items()
        trace.losses.append({name: part.detach() for name, part in parts if part is not None})
    return trace


def read_update(
    trace: UpdateTrace, optimizer: GuardedOptimizer, step: int, clips: np.ndarray, ranks: Ranks
) -> UpdateSummary:
    """Means over the minibatches (largest ratio: maximum), read from the device at once; all ranks
    call it after the same update.

    Args:
        step: 0-based, of the run.
        clips: int64 [b], places of this rank's clips in the stream.

    Raises:
        NonFiniteError: more than `train.skip_nonfinite` gradients of the run were not finite; from
            the one too many on, the sampler has not changed.
    """
    names = list(trace.losses[0])
    table = torch.stack([torch.stack(list(loss.values())) for loss in trace.losses])
    head = torch.cat([table.mean(dim=0), table[:, -1].amax()[None]])
    values = torch.cat([head, torch.stack(trace.norms)]).tolist()
    good = [math.isfinite(norm) for norm in values[len(head) :]]
    metrics = _named(names, values[: len(head)])
    skipped = []
    if not all(good):
        learners, at_fault = locate(ranks, torch.stack(trace.own_faults).amax(), clips)
        where = f", PPO learner {', '.join(map(str, learners))}" if ranks.size > 1 else ""
        fault = Fault(
            f"step {step + 1}{where}: PPO's gradient or loss is not finite "
            f"({_losses(metrics)}largest ratio {metrics['ppo/ratio_max']:.3g})",
            at_fault,
        )
        skipped = [optimizer.skip(fault, good.count(False), _REMEDY)]
        rest = table[good]
        mean = torch.cat([rest.mean(dim=0), rest[:, -1].amax()[None]]) if len(rest) else None
        metrics = {} if mean is None else _named(names, mean.tolist())
    if optimizer.skip_limit:
        metrics["ppo/skipped_updates"] = float(optimizer.skipped)
    return UpdateSummary(metrics, skipped)


_REMEDY = "lower rl.lr, or let train.skip_nonfinite such updates be left out"


def _losses(metrics: dict[str, float]) -> str:
    """For people; the value loss where there is a critic."""
    parts = {name: metrics.get(f"ppo/{name}") for name in ("policy", "value")}
    return "".join(f"{name} loss {loss:.3g}, " for name, loss in parts.items() if loss is not None)


def _named(names: list[str], values: list[float]) -> dict[str, float]:
    """Means of the parts of the loss, then the largest ratio."""
    metrics = dict(zip(names, values[:-1], strict=True)) | {"ratio_max": values[-1]}
    return {f"ppo/{name}": value for name, value in metrics.items()}
