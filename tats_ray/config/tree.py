"""The whole configuration, and the rules between its sections."""

from __future__ import annotations

from pydantic import model_validator

from tats_ray.config.data import DataSection
from tats_ray.config.geometry import TokenGrid, visible_tokens
from tats_ray.config.masking import MaskingSection
from tats_ray.config.model import ModelSection
from tats_ray.config.rl import RLSection
from tats_ray.config.runtime import CheckpointSection, ClusterSection, RunSection, TrackingSection
from tats_ray.config.section import Section
from tats_ray.config.train import TrainSection


class Config(Section):
    run: RunSection
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    masking: MaskingSection = MaskingSection()
    rl: RLSection = RLSection()
    train: TrainSection = TrainSection()
    checkpoint: CheckpointSection = CheckpointSection()
    cluster: ClusterSection = ClusterSection()
    tracking: TrackingSection = TrackingSection()

    @property
    def grid(self) -> TokenGrid:
        """Token grid of one clip."""
        side = self.data.size // self.model.patch
        return TokenGrid(self.data.frames // self.model.tubelet, side, side)

    @property
    def visible(self) -> int:
        """Visible tokens per clip, the same for every clip of the run."""
        return visible_tokens(self.masking.system, self.grid, self.masking.ratio)

    @property
    def targets(self) -> int:
        """Masked tokens per clip that the decoder predicts."""
        masked = self.grid.tokens - self.visible
        return max(1, int(masked * self.model.decoder.target_fraction))

    @property
    def rollout_clips(self) -> int:
        """Clips per step that go through rollout actors (0 for fixed maskers)."""
        if not self.masking.learned:
            return 0
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
    def sizes_fit(self) -> Config:
        data, model = self.data, self.model
        if data.size % model.patch:
            raise ValueError(
                f"data.size {data.size} is not divisible by model.patch {model.patch}: "
                f"use data.size={data.size // model.patch * model.patch or model.patch}"
            )
        if data.frames % model.tubelet:
            raise ValueError(
                f"data.frames {data.frames} is not divisible by model.tubelet {model.tubelet}"
            )
        if not 0 < self.visible < self.grid.tokens:
            raise ValueError(
                f"masking.ratio {self.masking.ratio} leaves {self.visible} of "
                f"{self.grid.tokens} tokens visible: at least one must be visible and one masked"
            )
        return self

    @model_validator(mode="after")
    def batches_divide(self) -> Config:
        batch, workers = self.train.batch_size, self.train.workers
        if batch % workers:
            raise ValueError(
                f"train.batch_size {batch} is not divisible by train.workers {workers}: "
                f"use train.batch_size={(batch // workers + 1) * workers}"
            )
        if not self.masking.learned:
            return self
        learners, part = max(1, self.rl.learners), self.rl.minibatch_clips
        if self.rollout_clips % learners:
            raise ValueError(
                f"rl.learners {learners} does not divide the {self.rollout_clips} clips of a round"
            )
        if part is not None and (part % learners or self.rollout_clips % part):
            raise ValueError(
                f"rl.minibatch_clips {part} must be a multiple of rl.learners {learners} and "
                f"divide the {self.rollout_clips} clips of a round"
            )
        return self

    @model_validator(mode="after")
    def versions_arrive_in_time(self) -> Config:
        if self.masking.learned and self.train.publish_interval > self.rl.staleness + 1:
            raise ValueError(
                f"train.publish_interval {self.train.publish_interval} would never meet "
                f"rl.staleness {self.rl.staleness}: use at most rl.staleness + 1"
            )
        return self
