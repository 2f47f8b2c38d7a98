"""From the settings of a pre-training run to the parts of `rl`, for every process that has them."""

from __future__ import annotations

from dataclasses import replace

import torch

from tats_ray.config import Config
from tats_ray.data.clip_inputs import ClipInputs
from tats_ray.masking.selection import SamplerView
from tats_ray.models.mae import MaskedAutoencoder, build_mae
from tats_ray.models.samplers import TrajectorySampler
from tats_ray.rl.environment import ReconstructionEnvironment
from tats_ray.rl.learner import InProcessPolicy, LearnerSettings, PolicyLearner
from tats_ray.training.initial_weights import load_initial_policy
from tats_ray.training.pretraining_model import build_policy


def build_inputs(config: Config) -> ClipInputs:
    """How the run's steps read clips."""
    return ClipInputs(
        seed=config.run.seed,
        augment=config.data.augment,
        size=config.data.size,
        grid=config.grid,
        slice_noise=config.slice_noise,
        visible=config.visible,
        targets=config.targets,
        motion_points=config.motion_points,
    )


def build_environment(
    config: Config, device: torch.device, mae: MaskedAutoencoder | None = None
) -> ReconstructionEnvironment:
    """Args: mae: the autoencoder to ask; by default the environment has one of its own."""
    return ReconstructionEnvironment(
        mae or build_mae(config.model, config.grid, config.run.seed).to(device),
        replace(build_inputs(config), targets=config.reward_targets),
        view=SamplerView.of(config),
        precision=config.train.precision,
        copy_clipped=config.rl.reward == "copy_clipped_error",
    )


def build_first_policy(config: Config) -> TrajectorySampler:
    """The sampler that a run begins with: that of `train.initial_weights` where it has one."""
    sampler = build_policy(config)
    if config.train.initial_weights is not None:
        load_initial_policy(sampler, config.train.initial_weights)
    return sampler


def build_learner(config: Config, sampler: TrajectorySampler) -> PolicyLearner:
    """Args: sampler: of `build_policy`, on the device to compute on."""
    settings = LearnerSettings(
        rl=config.rl,
        inputs=build_inputs(config),
        view=SamplerView.of(config),
        precision=config.train.precision,
        minibatch_clips=config.learner_minibatch_clips,
        skip_limit=config.train.skip_nonfinite,
    )
    return PolicyLearner(sampler, settings)


def build_in_process_policy(
    config: Config, device: torch.device, mae: MaskedAutoencoder
) -> InProcessPolicy:
    """Rollouts and PPO beside the autoencoder that is trained in this process."""
    learner = build_learner(config, build_first_policy(config).to(device))
    return InProcessPolicy(build_environment(config, device, mae), learner)
