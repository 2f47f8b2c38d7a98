"""The rollout worker: an RLlib env runner that holds the autoencoder as its environment.

It keeps no state that matters. Every request names the versions of sampler and autoencoder to use
and where their weights are, so a worker that was just restarted, added or moved answers like any
other, and no weight broadcast can be missed.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner

from tats_ray.actors.decode_stream import read_remote
from tats_ray.config import Config, config_from_dict
from tats_ray.data.clips import ClipBatch
from tats_ray.errors import TatsRayError
from tats_ray.models.numerics import default_device
from tats_ray.models.state import VersionedWeights, load_model_state
from tats_ray.rl.gym_environment import MaskingVectorEnv, action_space, observation_space
from tats_ray.rl.rollout import Rollout, collect_rollout
from tats_ray.training.policy import build_environment
from tats_ray.training.pretraining_model import build_policy

# What lost objects, a lost node or a full memory look like from inside a worker: asking again, of
# this worker or of another, may succeed. Anything else is a mistake that every worker would repeat.
_PASSING_FAULTS = (ray.exceptions.RayError, TatsRayError, MemoryError, torch.OutOfMemoryError)


@dataclass(frozen=True)
class RolloutReply:
    """What a worker did with its chunks.

    Attributes:
        failure: the reason of the first chunk that failed and may succeed when asked again.
        mistake: the traceback of a fault in the code, which every worker would repeat.
    """

    rollouts: list[Rollout]
    failure: str | None = None
    mistake: str | None = None


def spaces(settings: Config) -> tuple[Any, Any]:
    """Of observations and actions, each of one clip."""
    observed = observation_space(settings.grid, settings.sampler_input_width)
    return observed, action_space(settings.grid, settings.visible)


class MaskingEnvRunner(EnvRunner):
    """Draws token sets for clips and scores them."""

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self._settings = config_from_dict(config.env_config["config"])
        torch.set_num_threads(self._settings.cluster.threads)
        self._device = default_device() if config.num_gpus_per_env_runner else torch.device("cpu")
        self._policy_version = -1
        self._mae_version = -1
        if self.worker_index:  # 0 is RLlib's own in the driver, where no others are wanted: idle
            self.make_env()
            self.make_module()

    def make_env(self) -> None:
        settings = self._settings
        environment = build_environment(settings, self._device)
        self.env = MaskingVectorEnv(
            environment, settings.sampler_input_width, settings.rl.reward_sign
        )

    def make_module(self) -> None:
        self.module = build_policy(self._settings).to(self._device).eval()

    def sample(
        self,
        *,
        chunks: list[ClipBatch],
        policy: VersionedWeights,
        mae: VersionedWeights,
        **kwargs: Any,
    ) -> RolloutReply:
        """Rolls out each chunk with the named versions.

        Nothing that fails ends the worker. The reply carries a reason that may pass, and the caller
        decides whether to ask again; it carries the traceback of a mistake in the code.
        """
        done: list[Rollout] = []
        try:
            self._load(policy, mae)
            for chunk in chunks:
                rollout = collect_rollout(
                    self.env.environment,
                    self.module,
                    read_remote(chunk),
                    policy_version=self._policy_version,
                    draws=self._settings.rl.draws_per_clip,
                )
                done.append(rollout.to(torch.device("cpu")))
        except _PASSING_FAULTS as error:
            traceback.print_exc()  # into this worker's log
            return RolloutReply(done, f"{type(error).__name__}: {error}")
        except Exception:  # told, not raised: RLlib ends an actor whose method raises (`apply`)
            return RolloutReply(done, mistake=traceback.format_exc())
        return RolloutReply(done)

    def _load(self, policy: VersionedWeights, mae: VersionedWeights) -> None:
        if policy.version != self._policy_version:
            load_model_state(self.module, ray.get(policy.ref))
            self._policy_version = policy.version
        if mae.version != self._mae_version:
            self.env.environment.load(mae.version, ray.get(mae.ref))
            self._mae_version = mae.version

    def get_spaces(self) -> dict[str, Any]:
        single = spaces(self._settings)
        return {
            INPUT_ENV_SPACES: single,
            INPUT_ENV_SINGLE_SPACES: single,
            DEFAULT_MODULE_ID: single,
        }

    def assert_healthy(self) -> None:
        assert self.env is not None, "the environment has not been built"
        assert self.module is not None, "the sampler has not been built"

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Nothing: weights come with each request."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing: weights come with each request."""
