"""Trials as Ray tasks; one whose process dies is begun again from its checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tats_ray.actors.cluster import cluster_resources, start_ray
from tats_ray.config.compare import CompareConfig
from tats_ray.controller.trial import TrialFailure, TrialPlan, run_trial
from tats_ray.errors import ResourceError, StorageError
from tats_ray.evaluation.comparison import TrialResult


def run_as_tasks(
    config: CompareConfig, plans: list[TrialPlan]
) -> Iterator[TrialResult | TrialFailure]:
    """Outcomes in the order in which trials end.

    Raises:
        ResourceError: there is no cluster, or it is too small for one trial.
        StorageError: a trial's disc is full or read-only.
    """
    section = config.compare
    start_ray(config.cluster, section.trial_cpus)
    import ray

    cpus, gpus = cluster_resources()
    if section.trial_cpus > cpus or section.trial_gpus > gpus:
        raise ResourceError(
            f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs, a trial needs "
            f"{section.trial_cpus:g} and {section.trial_gpus:g}; lower compare.trial_cpus or "
            "compare.trial_gpus"
        )
    task = ray.remote(run_trial).options(
        num_cpus=section.trial_cpus,
        num_gpus=section.trial_gpus,
        max_retries=section.trial_retries,
    )
    waiting = {task.remote(plan): plan for plan in plans}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        plan = waiting.pop(done)
        try:
            yield ray.get(done)
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.RayTaskError) and isinstance(
                error.cause, StorageError
            ):
                # The others meet the same disc; Ray would print a trace of each behind our line.
                os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"
                raise error.cause from None
            yield TrialFailure(plan.trial.name, str(error).strip().splitlines()[-1])
