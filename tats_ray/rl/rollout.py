"""Rollouts: draw visible tokens from the policy, score them with the autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.masking.selection import draw_without_replacement
from tats_ray.models.inputs import mask_noise
from tats_ray.models.precision import autocast
from tats_ray.models.sampler import TrajectorySampler
from tats_ray.rl.environment import ReconstructionEnvironment


@dataclass(frozen=True)
class Rollout:
    """What a rollout actor returns: indices and numbers, never pixels.

    Attributes:
        first: run-wide index of the first clip.
        policy_version: sampler that drew the tokens.
        mae_version: autoencoder that scored them.
        visible: int64 [B, D, k], as drawn.
        targets: int64 [B, D, q], predicted masked tokens.
        error: float32 [B, D, q], their reconstruction errors.
        log_policy: float32 [B, N], the policy's log-probabilities.
    """

    first: int
    policy_version: int
    mae_version: int
    visible: np.ndarray
    targets: np.ndarray
    error: np.ndarray
    log_policy: np.ndarray

    def __len__(self) -> int:
        return len(self.visible)

    def error_figures(self) -> dict[str, float]:
        """The mean error as a figure; none where an error is not finite."""
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
            log_policy=self.log_policy[start:stop],
        )


def collect_rollout(
    config: Config,
    environment: ReconstructionEnvironment,
    sampler: TrajectorySampler,
    clips: Clips,
    policy_version: int,
) -> Rollout:
    """Scores `rl.draws_per_clip` token sets of each clip."""
    tokens = environment.observe(clips)
    with torch.no_grad(), autocast(config.train.precision, environment.device):
        log_policy = sampler.log_probs(tokens)
    draws = range(config.rl.draws_per_clip)
    visible = [draw_tokens(config, log_policy, clips.first, draw) for draw in draws]
    scored = [environment.score(chosen, draw) for draw, chosen in enumerate(visible)]
    return Rollout(
        first=clips.first,
        policy_version=policy_version,
        mae_version=environment.version,
        visible=_stack(visible),
        targets=_stack([targets for targets, _ in scored]),
        error=_stack([error for _, error in scored]),
        log_policy=log_policy.cpu().numpy(),
    )


def draw_tokens(config: Config, log_policy: Tensor, first: int, draw: int) -> Tensor:
    """Visible tokens of one draw, int64 [B, k], with the clips' own seeded noise."""
    noise = mask_noise(config, first, len(log_policy), log_policy.device, draw)
    return draw_without_replacement(log_policy, noise, config.visible)


def join_rollouts(parts: list[Rollout]) -> Rollout:
    """Consecutive rollouts of one round as one; all must be of the same versions."""
    head = parts[0]
    versions = {(part.policy_version, part.mae_version) for part in parts}
    assert len(versions) == 1, f"rollouts of one round have versions {sorted(versions)}"
    return replace(
        head,
        visible=np.concatenate([part.visible for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        error=np.concatenate([part.error for part in parts]),
        log_policy=np.concatenate([part.log_policy for part in parts]),
    )


def _stack(draws: list[Tensor]) -> np.ndarray:
    return torch.stack(draws, dim=1).cpu().numpy()
