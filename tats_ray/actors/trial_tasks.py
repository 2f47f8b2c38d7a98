"""Trials of a comparison as Ray tasks; one whose process dies is begun again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from tats_ray.actors.cluster import cluster_resources, start_ray
from tats_ray.config.compare import CompareConfig
from tats_ray.errors import ResourceError, StorageError

Plan = TypeVar("Plan")
Outcome = TypeVar("Outcome")


def run_as_tasks(
    run: Callable[[Plan], Outcome], plans: list[Plan], config: CompareConfig
) -> Iterator[tuple[Plan, Outcome | str]]:
    """Every plan with what `run` made of it, in the order in which trials end; with the reason
    instead where its process was lost for good.

    Args:
        run: runs a trial in the process of a task; goes on where an earlier call was cut off.

    Raises:
        ResourceError: there is no cluster, or it is too small for one trial.
        StorageError: a trial's disk is full or read-only.
    """
    settings = config.compare
    start_ray(config.cluster, settings.trial_cpus)
    import ray

    cpus, gpus = cluster_resources()
    if settings.trial_cpus > cpus or settings.trial_gpus > gpus:
        raise ResourceError(
            f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs, a trial needs "
            f"{settings.trial_cpus:g} and {settings.trial_gpus:g}; lower compare.trial_cpus or "
            "compare.trial_gpus"
        )
    task = ray.remote(run).options(
        num_cpus=settings.trial_cpus,
        num_gpus=settings.trial_gpus,
        max_retries=settings.trial_retries,
    )
    waiting = {task.remote(plan): plan for plan in plans}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        plan = waiting.pop(done)
        try:
            yield plan, ray.get(done)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, StorageError):
                # The others meet the same disk; Ray would print a trace of each behind our line.
                os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"
                raise cause from None
            yield plan, str(error).strip().splitlines()[-1]
