"""Rollouts: draw visible tokens from the policy, score them with the autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tats_ray.data.clips import Clips
from tats_ray.masking.selection import draw_without_replacement
from tats_ray.models.numerics import autocast
from tats_ray.models.samplers import Sampler
from tats_ray.rl.environment import ReconstructionEnvironment


@dataclass(frozen=True)
class Rollout:
    """What a policy learns from: indices and numbers, never pixels.

    Attributes:
        first: run-wide index of the first clip.
        policy_version: sampler that drew the tokens.
        mae_version: autoencoder that scored them.
        visible: int64 [B, D, k], as drawn.
        targets: int64 [B, D, q], predicted masked tokens.
        error: float32 [B, D, q], their reconstruction errors.
        old_log_probs: float32 [B, N], log-probabilities of the policy that drew.
        view: float [B, N, d], what the policy saw; None where it has to be made again.
    """

    first: int
    policy_version: int
    mae_version: int
    visible: Tensor
    targets: Tensor
    error: Tensor
    old_log_probs: Tensor
    view: Tensor | None = None

    def __len__(self) -> int:
        return len(self.visible)

    def rows(self, start: int, stop: int) -> Rollout:
        """A contiguous part."""
        return replace(
            self,
            first=self.first + start,
            visible=self.visible[start:stop],
            targets=self.targets[start:stop],
            error=self.error[start:stop],
            old_log_probs=self.old_log_probs[start:stop],
        )

    def to(self, device: torch.device) -> Rollout:
        """The same on another device."""
        return replace(
            self,
            visible=self.visible.to(device),
            targets=self.targets.to(device),
            error=self.error.to(device),
            old_log_probs=self.old_log_probs.to(device),
        )


def collect_rollout(
    environment: ReconstructionEnvironment,
    sampler: Sampler,
    clips: Clips,
    *,
    policy_version: int,
    draws: int,
) -> Rollout:
    """Draws `draws` token sets of each clip with the clips' own seeded noise, and scores them."""
    tokens = environment.observe(clips)
    inputs, device = environment.inputs, environment.device
    with torch.no_grad(), autocast(environment.precision, device):
        log_probs = sampler.log_probs(tokens)
    visible, scored = [], []
    for draw in range(draws):
        noise = inputs.mask_noise(clips.first, len(clips), device, draw)
        visible.append(draw_without_replacement(log_probs, noise, inputs.visible))
        scored.append(environment.score(visible[-1]))
    return Rollout(
        first=clips.first,
        policy_version=policy_version,
        mae_version=environment.version,
        visible=torch.stack(visible, dim=1),
        targets=torch.stack([targets for targets, _ in scored], dim=1),
        error=torch.stack([error for _, error in scored], dim=1),
        old_log_probs=log_probs,
    )


def error_metrics(mean: Tensor) -> dict[str, float]:
    """A mean error, read from the device, by its metric's name; empty where it is not finite."""
    value = mean.item()
    return {"rollout/error": value} if math.isfinite(value) else {}


def join_rollouts(chunks: list[Rollout]) -> Rollout:
    """Consecutive rollouts of one iteration as one; all must be of the same versions."""
    versions = {(chunk.policy_version, chunk.mae_version) for chunk in chunks}
    assert len(versions) == 1, f"rollouts of one iteration have versions {sorted(versions)}"
    views = [chunk.view for chunk in chunks if chunk.view is not None]
    return replace(
        chunks[0],
        view=torch.cat(views) if views else None,
        visible=torch.cat([chunk.visible for chunk in chunks]),
        targets=torch.cat([chunk.targets for chunk in chunks]),
        error=torch.cat([chunk.error for chunk in chunks]),
        old_log_probs=torch.cat([chunk.old_log_probs for chunk in chunks]),
    )
