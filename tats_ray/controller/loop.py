"""The training iteration, whatever is trained and wherever: the same lines run in one process, on
Ray, in the benchmark and in the golden test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tats_ray.controller.executor import Completed, Executor
from tats_ray.data.clips import ClipBatch


class Records(Protocol):
    """What becomes of steps: metrics, checkpoints, pictures."""

    def begin(self, step: int, batch: ClipBatch) -> None:
        """Records that a step begins on a batch."""
        ...

    def wants_state(self, step: int) -> bool:
        """Whether the state after `step` finished steps is of use."""
        ...

    def collect(self, completed: Completed, *, last_step: int | None = None) -> None:
        """Records what is done; `last_step` is given with what `executor.finish` returns."""
        ...


def run_iterations(
    executor: Executor,
    records: Records,
    steps: range,
    next_batch: Callable[[int], ClipBatch | None] | None = None,
) -> int:
    """Runs the iterations of 0-based steps; returns the number of steps that were submitted, which
    `executor.finish` waits for.

    Args:
        next_batch: in place of the executor's; gives None where the run is to stop before the step.
    """
    next_batch = next_batch or executor.next_batch
    done = steps.start
    for step in steps:
        batch = next_batch(step)
        if batch is None:
            break
        records.begin(step, batch)
        wanted = records.wants_state(step + 1)
        rollout = executor.roll_out(step, batch)  # None for fixed maskers and in warm-up
        executor.update_policy(step, batch, rollout)
        executor.train(step, batch, rollout, snapshot=wanted)
        executor.learn_from_training(step, batch)  # in place of rollouts, with rl.rewards=training
        if wanted:
            executor.keep_state(step + 1)
        records.collect(executor.completed())  # on Ray, steps may complete later
        done = step + 1
    return done
