"""The environment behind gymnasium's vector interface, for RLlib and for other agents."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from tats_ray.config.geometry import TokenGrid
from tats_ray.data.clips import Clips
from tats_ray.rl.environment import ReconstructionEnvironment


def observation_space(grid: TokenGrid, width: int) -> gym.spaces.Box:
    """What a sampler sees of one clip, float32 [N, width]."""
    return gym.spaces.Box(-np.inf, np.inf, (grid.tokens, width), np.float32)


def action_space(grid: TokenGrid, visible: int) -> gym.spaces.MultiDiscrete:
    """Ordered index set of the visible tokens (they must be distinct)."""
    return gym.spaces.MultiDiscrete([grid.tokens] * visible)


class MaskingVectorEnv(VectorEnv):
    """One-step episodes over a batch of clips: an observation is a clip, an action a token set.

    `reset(options={"clips": Clips})` shows clips; `step(visible)` ends all episodes with the
    reward sign x mean error, and gives targets and per-token errors in `infos`. Observations and
    actions are batched tensors on the environment's device.
    """

    def __init__(
        self, environment: ReconstructionEnvironment, width: int, reward_sign: int
    ) -> None:
        """Args: width: numbers of an observation per token."""
        self.environment = environment
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        inputs = environment.inputs
        self.single_observation_space = observation_space(inputs.grid, width)
        self.single_action_space = action_space(inputs.grid, inputs.visible)
        self.num_envs = 0
        self._reward_sign = reward_sign
        self._tokens: Tensor | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        clips = (options or {}).get("clips")
        if not isinstance(clips, Clips):
            raise ValueError("reset needs the clips to show: options={'clips': Clips(...)}")
        self._tokens = self.environment.observe(clips)
        self.num_envs = len(clips)
        batch_space = gym.vector.utils.batch_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        return self._tokens, {}

    def step(
        self, actions: Tensor | np.ndarray
    ) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert self._tokens is not None, "reset comes first"
        visible = torch.as_tensor(actions, dtype=torch.int64, device=self.environment.device)
        targets, error = self.environment.score(visible)
        reward = self._reward_sign * error.mean(dim=1)
        done = np.ones(self.num_envs, dtype=bool)
        infos = {"targets": targets, "error": error}
        return self._tokens, reward.double().cpu().numpy(), done, ~done, infos
