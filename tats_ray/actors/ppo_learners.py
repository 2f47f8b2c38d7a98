"""The driver's side of the PPO learners: calls them, and starts lost ones anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.exceptions import RayActorError

from tats_ray.actors.ppo_learner import LearnerRound, MaskingPPOLearner
from tats_ray.actors.rollout_collector import death_cause
from tats_ray.config import Config
from tats_ray.errors import ComponentFailedError
from tats_ray.models.state import State
from tats_ray.rl.update_figures import UpdateSummary
from tats_ray.rl.versions import PolicyState


class PPOLearners:
    """All learners as one. Remote ones that die are started anew with the newest state that was
    kept, at most `train.snapshot_interval` updates old; the call that found them dead is repeated.

    Attributes:
        version: updates so far, those included that a restart has undone: it only grows.
        restarts: how often learners were started anew.
        undone: updates that restarts have undone.
    """

    def __init__(self, settings: Config, group: Any, rebuild: Callable[[], Any]) -> None:
        """Args:
        group: RLlib's LearnerGroup.
        rebuild: ends it and makes another.
        """
        self._settings = settings
        self._group = group
        self._rebuild = rebuild
        self._kept: PolicyState | None = None  # None: as it was built
        self._kept_at = 0  # the version that it is the state of; after a restart the newest one
        self.version = 0
        self.restarts = 0
        self.undone = 0

    def update(self, job: LearnerRound) -> UpdateSummary:
        """One PPO update; its result is of version `version`.

        Raises:
            NonFiniteError: PPO diverged.
            ComponentFailedError: learners were lost more than `train.max_failures` times.
        """
        summary = self._call(MaskingPPOLearner.update_round, job=job)
        self.version += 1
        interval = self._settings.train.snapshot_interval
        if self._settings.rl.learners and self.version % interval == 0:
            self.state()
        return summary

    def weights(self) -> State:
        """The newest sampler."""
        return self._call(MaskingPPOLearner.policy_weights)

    def state(self) -> PolicyState:
        """Sampler and optimiser, which a restart would continue from."""
        self._kept = self._call(MaskingPPOLearner.policy_state, version=self.version)
        self._kept_at = self.version
        return self._kept

    def load(self, state: PolicyState) -> None:
        """Continues from a checkpoint."""
        self.version = self._kept_at = state.version
        self._kept = state
        self._call(MaskingPPOLearner.load_policy_state, state=state)

    def figures(self) -> dict[str, float]:
        """What was lost so far; nothing where the learner lives in the driver."""
        if not self._settings.rl.learners:
            return {}
        return {"ppo/restarts": float(self.restarts), "ppo/undone_updates": float(self.undone)}

    def _call(self, call: Any, **kwargs: Any) -> Any:
        """The first learner's answer; the first error that is not of a lost learner is raised."""
        while True:
            results = self._group.foreach_learner(call, **kwargs)
            answers = [result.get() for result in results]
            lost = [answer for answer in answers if isinstance(answer, RayActorError)]
            if answers and not lost:
                break
            self._restart(lost[0] if lost else None)
        for answer in answers:
            if isinstance(answer, Exception):
                raise getattr(answer, "cause", None) or answer
        return answers[0]

    def _restart(self, cause: RayActorError | None) -> None:
        limit = self._settings.train.max_failures
        if self.restarts >= limit:
            reason = death_cause(cause) if cause else "none answered"
            raise ComponentFailedError(
                f"the PPO learner was lost after train.max_failures={limit} restarts: {reason}"
            )
        self.restarts += 1
        self.undone += self.version - self._kept_at
        self._kept_at = self.version
        self._group = self._rebuild()
        if self._kept is not None:
            self._call(MaskingPPOLearner.load_policy_state, state=self._kept)
