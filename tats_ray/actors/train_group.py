"""The Train workers as one group under Ray Train, whose losses are counted once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import ray
import ray.train
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train.torch import TorchTrainer

from tats_ray.actors.hub import HubClient
from tats_ray.actors.ray_compat import death_cause
from tats_ray.actors.train_compat import remove_placement_groups, start_controller
from tats_ray.errors import ComponentFailedError
from tats_ray.tracking.console import log

_TELL_SECONDS = 5.0


class TrainGroup:
    """Ray Train replaces workers that die while they work. Where they die as they start, or its
    controller dies, it gives up; then everything of the old group is ended and another one begins.
    What a group begins with is in the hub.

    Attributes:
        restarts: how often workers were started anew, by whomever.
    """

    def __init__(self, trainer: Callable[[int], TorchTrainer], limit: int) -> None:
        """
        Args:
            trainer: makes the trainer from the number of restarts that Ray Train has left.
            limit: of the restarts.
        """
        self.restarts = 0
        self._trainer = trainer
        self._limit = limit
        self._start()

    def ended(self, seconds: float) -> bool:
        """Waits for the end of the run; false at the time limit.

        Raises:
            ComponentFailedError: the workers were lost more often than the limit permits.
        """
        done, _ = ray.wait([self._run], timeout=seconds)
        if not done:
            return False
        error = self._error()
        if error is None:
            return True
        cause = death_cause(error)
        if isinstance(error, ray.train.WorkerGroupError) or self.restarts >= self._limit:
            raise ComponentFailedError(
                f"the Train workers failed after {min(self.restarts, self._limit)} restarts "
                f"(train.max_failures={self._limit}): {cause}"
            )
        self.count_loss(cause)
        self.kill()
        self._start()
        return False

    def count_loss(self, cause: str) -> None:
        """Ray Train has lost workers, and starts them anew where the limit permits."""
        self.restarts += 1
        if self.restarts <= self._limit:
            log(f"Train workers were lost ({cause}); restart {self.restarts} of {self._limit}")

    def wait(self, seconds: float) -> None:
        """Waits for the end of the run, whatever it is, or for the time limit."""
        ray.wait([self._run], timeout=seconds)

    def kill(self) -> None:
        """Ends the controller, the workers and what they had reserved."""
        ray.kill(self._controller)
        remove_placement_groups()

    def _start(self) -> None:
        self._controller: ActorHandle = start_controller(self._trainer(self._limit - self.restarts))
        self._run = self._controller.run.remote()

    def _error(self) -> Exception | None:
        """What a run that has ended failed with."""
        try:
            ray.get(self._run)
            return ray.get(self._controller.get_result.remote()).error
        except RayError as error:  # of the controller itself
            return error


class LossReport(ray.train.UserCallback):
    """Tells the hub of each loss of workers, from the controller."""

    def __init__(self, hub: HubClient) -> None:
        self._hub = hub

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """The controller starts the workers anew behind this, or gives up."""
        rank, error = min(worker_exceptions.items(), key=lambda item: item[0])
        with contextlib.suppress(RayError):  # without the hub the driver starts everything anew
            self._hub.lost(f"rank {rank}: {death_cause(error)}", _TELL_SECONDS)
