"""The environment behind gymnasium's vector interface, for RLlib and for other agents."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.rl.environment import ReconstructionEnvironment


def observation_space(config: Config) -> gym.spaces.Box:
    """Patch tokens of one clip, float32 [N, d]."""
    shape = (config.grid.tokens, config.model.width)
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)


def action_space(config: Config) -> gym.spaces.MultiDiscrete:
    """Ordered index set of the k visible tokens (they must be distinct)."""
    return gym.spaces.MultiDiscrete([config.grid.tokens] * config.visible)


class MaskingVectorEnv(ReconstructionEnvironment, VectorEnv):
    """One-step episodes over a batch of clips: an observation is a clip, an action a token set.

    `reset(options={"clips": Clips})` shows clips; `step(visible)` ends all episodes with the
    reward `rl.reward_sign` x mean error, and gives targets and per-token errors in `infos`.
    Observations and actions are batched tensors on the environment's device.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        super().__init__(config, device)
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = observation_space(config)
        self.single_action_space = action_space(config)
        self.num_envs = 0
        self._tokens: Tensor | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        clips = (options or {}).get("clips")
        if not isinstance(clips, Clips):
            raise ValueError("reset needs the clips to show: options={'clips': Clips(...)}")
        self._tokens = self.observe(clips)
        self.num_envs = len(clips)
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, self.num_envs
        )
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, self.num_envs)
        return self._tokens, {}

    def step(
        self, actions: Tensor | np.ndarray
    ) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert self._tokens is not None, "reset comes first"
        visible = torch.as_tensor(actions, dtype=torch.int64, device=self.device)
        targets, error = self.score(visible)
        reward = self.config.rl.reward_sign * error.mean(dim=1)
        done = np.ones(self.num_envs, dtype=bool)
        infos = {"targets": targets, "error": error}
        return self._tokens, reward.double().cpu().numpy(), done, ~done, infos
