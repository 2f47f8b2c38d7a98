"""Rollouts: draw visible tokens from the policy, score them with the autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tats_ray.data.clips import Clips
from tats_ray.masking.selection import draw_without_replacement
from tats_ray.models.numerics import autocast
from tats_ray.models.samplers import Sampler
from tats_ray.rl.environment import ReconstructionEnvironment


@dataclass(frozen=True)
class Rollout:
    """What a rollout worker returns: indices and numbers, never pixels.

    Attributes:
        first: run-wide index of the first clip.
        policy_version: sampler that drew the tokens.
        mae_version: autoencoder that scored them.
        visible: int64 [B, D, k], as drawn.
        targets: int64 [B, D, q], predicted masked tokens.
        error: float32 [B, D, q], their reconstruction errors.
        old_log_probs: float32 [B, N], log-probabilities of the policy that drew.
    """

    first: int
    policy_version: int
    mae_version: int
    visible: np.ndarray
    targets: np.ndarray
    error: np.ndarray
    old_log_probs: np.ndarray

    def __len__(self) -> int:
        return len(self.visible)

    def error_metrics(self) -> dict[str, float]:
        """The mean error by its metric's name; empty where an error is not finite."""
        mean = float(self.error.mean())
        return {"rollout/error": mean} if math.isfinite(mean) else {}

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
        scored.append(environment.score(visible[-1], draw))
    return Rollout(
        first=clips.first,
        policy_version=policy_version,
        mae_version=environment.version,
        visible=_stack(visible),
        targets=_stack([targets for targets, _ in scored]),
        error=_stack([error for _, error in scored]),
        old_log_probs=log_probs.cpu().numpy(),
    )


def join_rollouts(chunks: list[Rollout]) -> Rollout:
    """Consecutive rollouts of one iteration as one; all must be of the same versions."""
    versions = {(chunk.policy_version, chunk.mae_version) for chunk in chunks}
    assert len(versions) == 1, f"rollouts of one iteration have versions {sorted(versions)}"
    return replace(
        chunks[0],
        visible=np.concatenate([chunk.visible for chunk in chunks]),
        targets=np.concatenate([chunk.targets for chunk in chunks]),
        error=np.concatenate([chunk.error for chunk in chunks]),
        old_log_probs=np.concatenate([chunk.old_log_probs for chunk in chunks]),
    )


def _stack(draws: list[Tensor]) -> np.ndarray:
    return torch.stack(draws, dim=1).cpu().numpy()
