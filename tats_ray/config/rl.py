"""Rollouts, rewards and PPO. What the policy gradient means is explicit (docs/pretraining.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from tats_ray.config.settings import Settings


class WorkerRange(Settings):
    """Bounds within which a run chooses its number of rollout workers."""

    min: int = Field(1, ge=1)
    """Rollout workers at the beginning, and at least."""
    max: int = Field(ge=1)
    """Rollout workers at most."""

    @model_validator(mode="after")
    def bounds_are_in_order(self) -> WorkerRange:
        if self.min > self.max:
            raise ValueError(f"min={self.min} is more than max={self.max}")
        return self


def _form(given: object) -> str:
    return "(bounds)" if isinstance(given, dict | WorkerRange) else "(number)"


# What is wrong with one form is told of that form alone.
Workers = Annotated[
    Annotated[int, Field(ge=1), Tag("(number)")] | Annotated[WorkerRange, Tag("(bounds)")],
    Discriminator(_form),
]


class RLSettings(Settings):
    rewards: Literal["workers", "training"] = "training"
    """Where errors come from: each training step scores its own draws, or rollout workers score
    others beside it."""

    # Actors and schedule
    rollout_workers: Workers = 1
    """Processes that draw and score masks, or {min, max}: the run adds some while training waits
    for rollouts, and removes some while these wait for training."""
    learners: int = Field(0, ge=0)
    """PPO learners in processes of their own, with DDP; 0: one in the driver."""
    rollout_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the clips of a step that rollout workers score."""
    rollout_clips: int = Field(8, ge=1)
    """Clips per rollout, the unit that is handed to a worker."""
    draws_per_clip: int = Field(1, ge=1)
    """Masks drawn and scored per clip."""
    reward_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the predicted masked tokens that rollout workers score, at random."""
    staleness: int = Field(1, ge=0)
    """Step i waits for the autoencoder of step i - staleness; 0 is lockstep."""

    # Meaning of the gradient; the defaults are those that docs/study.md found best
    credit_level: Literal["token", "set"] = "token"
    """Who carries a reward: every token its own, or the set their mean."""
    log_prob_over: Literal["masked", "visible"] = "visible"
    """Whose log-probability the advantage multiplies. Visible tokens have no error of their own:
    with credit_level=token the masked ones stand for them, each weighed by how likely it was to be
    visible."""
    reward: Literal["error", "copy_clipped_error"] = "copy_clipped_error"
    """The reconstruction error, or at most the error of copying the token from its place one
    time slice before or after."""
    reward_sign: Literal[1, -1] = 1
    """The reward is this times `reward`."""
    set_log_prob: Literal["mean", "plackett_luce"] = "mean"
    """Of a set: mean over its members, or the exact probability of the drawn order."""
    baseline: Literal["critic", "group", "none"] = "none"
    """What is subtracted from rewards: the value network's estimate, the mean of the clip's
    draws, or nothing."""
    whiten: Literal["clip", "batch", "none"] = "clip"
    """Over what advantages are brought to mean 0 and deviation 1."""

    objective: Literal["ppo", "policy_gradient"] = "ppo"
    """PPO's clipped surrogate, or log p x advantage."""

    # PPO
    clip: float = Field(0.2, gt=0)
    """PPO's bound on ratios: 1 - clip to 1 + clip."""
    epochs: int = Field(1, ge=1)
    """Passes over the rollouts of a step."""
    minibatch_clips: int | None = Field(None, ge=1)
    """Clips per PPO update over all learners; empty: all that a step rolls out."""
    entropy_coefficient: float = Field(0.01, ge=0)
    """Weight of the policy's entropy."""
    lr: float = Field(1.5e-4, gt=0)
    """Learning rate of the sampler."""

    # Faults
    rollout_seconds: float = Field(120.0, gt=0)
    """Time limit of one rollout, seconds; a slower worker is replaced."""
    max_worker_restarts: int = Field(20, ge=0)
    """Restarts of one rollout worker, and failures within one step."""

    @model_validator(mode="after")
    def credit_fits_the_action(self) -> RLSettings:
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
