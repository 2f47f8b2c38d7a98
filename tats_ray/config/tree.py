"""The configuration of pre-training, and the rules between its sections."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from tats_ray.config.data import FIELD_SOURCES, DataSettings, Form
from tats_ray.config.geometry import pixel_values
from tats_ray.config.job import JobConfig
from tats_ray.config.masking import (
    MaskingSettings,
    MaskingSystem,
    RolloutSettings,
    default_settings,
    settings_class,
    system_class,
)
from tats_ray.config.rl import RLSettings
from tats_ray.config.train import PretrainSettings


class Config(JobConfig):
    data: DataSettings = DataSettings()
    train: PretrainSettings = PretrainSettings()
    masking: SerializeAsAny[MaskingSettings] = Field(default_factory=default_settings)
    rl: RLSettings = RLSettings()

    @field_validator("masking", mode="before")
    @classmethod
    def read_as_its_system(cls, given: Any) -> Any:
        """A union by `masking.system`: a setting of another system is an unknown key."""
        return settings_class(given).model_validate(given) if isinstance(given, dict) else given

    @property
    def _system(self) -> type[MaskingSystem]:
        return system_class(self.masking.system)

    @property
    def masking_system(self) -> MaskingSystem:
        """The system that chooses the visible tokens."""
        return self._system(self.masking, self.grid)

    @property
    def visible(self) -> int:
        """Visible tokens per clip, the same for every clip of the run."""
        return self.masking_system.count_visible()

    @property
    def sampler_input_width(self) -> int:
        """Numbers per token that the system's sampler reads."""
        if self.masking_system.reads == "pixels":
            return pixel_values(self.model.tubelet, self.model.patch)
        return self.model.width

    @property
    def targets(self) -> int:
        """Masked tokens per clip that the decoder predicts."""
        masked = self.grid.tokens - self.visible
        return max(1, int(masked * self.model.decoder.target_fraction))

    @property
    def reward_targets(self) -> int:
        """Masked tokens per clip that rollout workers predict for a reward."""
        return max(1, int(self.targets * self.rl.reward_fraction))

    @property
    def motion_form(self) -> Form:
        """What the clips carry: what the masking system reads, tracks for the motion target."""
        if self._system.reads == "field":
            return "field"
        tracks = self._system.reads == "tracks" or self.model.motion_target.weight > 0
        return "tracks" if tracks else "none"

    @property
    def motion_source(self) -> str:
        """`data.motion.source` with `auto` resolved."""
        if self.motion_form == "none":
            return "none"
        if self.data.motion.source != "auto":
            return self.data.motion.source
        return "vectors" if self.motion_form == "field" else "lucas_kanade"

    @property
    def motion_grid(self) -> int:
        """Points per side of the frame at which motion is known."""
        return self.data.motion.grid or self.motion_points

    @property
    def motion_points(self) -> int:
        """Points per side of the model's input at which motion is given: 2 x 2 per token."""
        return 2 * self.grid.rows

    @property
    def learns_by_rollouts(self) -> bool:
        """Whether rollouts and PPO train the system's sampler."""
        return self._system.trained_by == "rollouts"

    @property
    def learns_in_step(self) -> bool:
        """Whether the system's sampler is trained inside the autoencoder's own step."""
        return self._system.trained_by == "step"

    @property
    def trained_on_own_errors(self) -> bool:
        """Whether a policy learns from the errors of the training steps' own draws."""
        return self.learns_by_rollouts and self.rl.rewards == "training"

    @property
    def slice_noise(self) -> float:
        """`masking.slice_noise`; 0 where the system has none."""
        return self.masking.slice_noise if isinstance(self.masking, RolloutSettings) else 0.0

    @property
    def sampler_warmup_steps(self) -> int:
        """Steps with random masks before rollouts start."""
        return self.masking.warmup_steps if isinstance(self.masking, RolloutSettings) else 0

    @property
    def rollout_workers(self) -> int:
        """Resident rollout workers at the run's beginning."""
        if not self.learns_by_rollouts or self.trained_on_own_errors:
            return 0
        wanted = self.rl.rollout_workers
        return wanted if isinstance(wanted, int) else wanted.min

    @property
    def remote_learners(self) -> int:
        return self.rl.learners if self.learns_by_rollouts else 0

    @property
    def rollout_clips(self) -> int:
        """Clips per step that the policy learns from (0 for fixed maskers)."""
        if not self.learns_by_rollouts:
            return 0
        if self.trained_on_own_errors:
            return self.train.batch_size
        return max(1, round(self.train.batch_size * self.rl.rollout_fraction))

    @property
    def learner_clips(self) -> int:
        """Clips per step that one PPO learner updates on."""
        return self.rollout_clips // max(1, self.rl.learners)

    @property
    def learner_minibatch_clips(self) -> int:
        """Clips per PPO minibatch of one learner."""
        if self.rl.minibatch_clips is None:
            return self.learner_clips
        return self.rl.minibatch_clips // max(1, self.rl.learners)

    @model_validator(mode="after")
    def crops_divide(self) -> Config:
        data = self.data
        if data.repeats % data.crops:
            raise ValueError(f"data.crops {data.crops} does not divide data.repeats {data.repeats}")
        return self

    @model_validator(mode="after")
    def masking_fits(self) -> Config:
        if not 0 < self.visible < self.grid.tokens:
            raise ValueError(
                f"masking.ratio {self.masking.ratio} leaves {self.visible} of "
                f"{self.grid.tokens} tokens visible: at least one must be visible and one masked"
            )
        self.masking.check(self.grid, self.model.width)
        return self

    @model_validator(mode="after")
    def motion_fits(self) -> Config:
        if self.motion_form == "none":
            return self
        if self.motion_source == "none":
            raise ValueError(
                f"data.motion.source is none, but {self.masking.system} masking or "
                "model.motion_target needs motion: use data.motion.source=auto"
            )
        if self.motion_form == "field" and self.motion_source not in FIELD_SOURCES:
            raise ValueError(
                f"data.motion.source {self.motion_source} follows points, but masking.system "
                f"{self.masking.system} needs a field: use one of "
                f"{', '.join(sorted(FIELD_SOURCES))}"
            )
        if self.motion_form == "field" and self.model.motion_target.weight > 0:
            raise ValueError(
                "model.motion_target needs tracks, but masking.system "
                f"{self.masking.system} a field: set model.motion_target.weight=0"
            )
        return self

    @model_validator(mode="after")
    def targets_fit(self) -> Config:
        frames, time = self.model.target.frames, self.grid.time
        if frames is not None and (frames % time or frames > self.data.frames):
            raise ValueError(
                f"model.target.frames {frames} must be a multiple of the {time} time slices and "
                f"at most data.frames {self.data.frames}"
            )
        if self._system.trained_by != "nothing" and not self.model.target.weight:
            raise ValueError(
                f"masking.system {self.masking.system} learns from the pixel error: set "
                "model.target.weight above 0"
            )
        return self

    @model_validator(mode="after")
    def rewards_fit(self) -> Config:
        if not self.trained_on_own_errors:
            return self
        if self.masking_system.reads != "pixels":
            raise ValueError(
                "rl.rewards 'training' scores with an autoencoder that has changed when the policy "
                "is updated, so that its patch tokens are gone: set masking.sampler.reads=pixels"
            )
        if self.rl.draws_per_clip > 1:
            raise ValueError(
                "rl.rewards 'training' scores the one draw of each clip that is trained on: set "
                "rl.draws_per_clip=1"
            )
        return self

    @model_validator(mode="after")
    def rounds_divide(self) -> Config:
        if not self.learns_by_rollouts:
            return self
        learners, part = max(1, self.rl.learners), self.rl.minibatch_clips
        if self.rollout_clips % learners:
            raise ValueError(
                f"rl.learners {learners} does not divide the {self.rollout_clips} clips that a "
                "step rolls out"
            )
        if part is not None and (part % learners or self.rollout_clips % part):
            raise ValueError(
                f"rl.minibatch_clips {part} must be a multiple of rl.learners {learners} and "
                f"divide the {self.rollout_clips} clips that a step rolls out"
            )
        return self
