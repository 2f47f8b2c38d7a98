"""Rollouts, rewards and PPO. What the policy gradient means is explicit (docs/pretraining.md)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tats_ray.config.settings import Settings


class RLSettings(Settings):
    # Actors and schedule
    rollout_workers: int = Field(1, ge=1)
    learners: int = Field(0, ge=0)  # 0: the PPO learner lives in the driver; n: n remote, with DDP
    rollout_fraction: float = Field(
        0.25, gt=0, le=1
    )  # share of the clips scored by rollout workers
    rollout_clips: int = Field(8, ge=1)  # clips per rollout, the unit handed to an actor
    draws_per_clip: int = Field(4, ge=1)
    staleness: int = Field(1, ge=0)  # step i waits for MAE version i - staleness; 0 is lockstep

    # Meaning of the gradient; the defaults are those that docs/study.md found best
    credit_level: Literal["token", "set"] = "set"
    log_prob_over: Literal["masked", "visible"] = "visible"
    reward: Literal["error", "copy_clipped_error"] = (
        "copy_clipped_error"  # reconstruction error, or the part of
    )
    # it that a copy from the same place one time slice before or after does not explain either
    reward_sign: Literal[1, -1] = -1
    set_log_prob: Literal["mean", "plackett_luce"] = "mean"
    baseline: Literal["critic", "group", "none"] = "group"
    whiten: Literal["clip", "batch", "none"] = "batch"

    objective: Literal["ppo", "policy_gradient"] = "ppo"  # clipped surrogate | log p x advantage

    # PPO
    clip: float = Field(0.2, gt=0)
    epochs: int = Field(1, ge=1)
    minibatch_clips: int | None = Field(None, ge=1)  # empty: all rolled-out clips of a step
    entropy_coefficient: float = Field(0.01, ge=0)
    lr: float = Field(1.5e-4, gt=0)

    # Faults
    rollout_seconds: float = Field(120.0, gt=0)  # an actor that takes longer to answer is replaced
    max_worker_restarts: int = Field(20, ge=0)  # of one worker; and failures within one step

    @model_validator(mode="after")
    def credit_fits_the_action(self) -> RLSettings:
        if self.credit_level == "token" and self.log_prob_over == "visible":
            raise ValueError(
                "action_set 'visible' has no per-token error (visible tokens are not "
                "reconstructed): set rl.credit_level=set or rl.log_prob_over=masked"
            )
        if self.set_log_prob == "plackett_luce" and (
            self.credit_level != "set" or self.log_prob_over != "visible"
        ):
            raise ValueError(
                "set_log_prob 'plackett_luce' is the probability of the drawn visible order: "
                "set rl.credit_level=set and rl.log_prob_over=visible"
            )
        if self.baseline == "group" and self.draws_per_clip < 2:
            raise ValueError(
                "baseline 'group' compares the draws of one clip: set rl.draws_per_clip >= 2"
            )
        return self
