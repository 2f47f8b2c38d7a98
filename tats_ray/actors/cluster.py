"""Ray: environment, start or connection, resources of each part, and the preflight."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tats_ray.actors.auth_token import guard_token
from tats_ray.actors.object_store import store_warning
from tats_ray.config.job import JobConfig
from tats_ray.config.runtime import ClusterSettings
from tats_ray.errors import ResourceError
from tats_ray.tracking.console import log

if TYPE_CHECKING:
    from torch import nn

# Read by Ray when it is imported; a user's own setting wins.
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    # The Train controller looks at its workers this often; its default of 2 s delays starts.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
}
_LOCAL = {
    # Nothing listens on an interface that others reach. Ray names the variable for the systems
    # where it does so by default.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    # Parts have shares of a CPU and are more processes than there are CPUs. Ray would then end
    # every other worker that had no task for a second, and decode workers would start, and import
    # everything, anew for each window.
    "RAY_num_workers_soft_limit": "64",
    # Ray would start a worker per CPU at once, of which none has the environment that ours have.
    "RAY_prestart_worker_first_driver": "0",
}
# A local cluster has no dashboard. Ray Train looks for one at the end of every run, for half a
# minute unless it is told an address; this one refuses at once.
_NO_DASHBOARD = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}
_NAMESPACE = "tats_ray"
# Of lost actors, which we report in one line.
_PRINT_PAGES = ("ray.rllib.utils.actor_manager", "ray.train._internal.backend_executor")
_M_ARENA_MAX = -8  # <malloc.h> of glibc


@dataclass(frozen=True)
class Resources:
    """CPUs and GPUs of one process or task of each kind, as settled for a cluster."""

    runner_cpus: float
    runner_gpus: float
    learner_cpus: float
    learner_gpus: float
    train_cpus: float
    train_gpus: float
    decode_cpus: float


def connect(config: JobConfig) -> None:
    """Starts a local cluster or joins the configured one, unless this process already has one.

    Raises:
        ResourceError: no cluster answers at `cluster.address`, none can be started here, or
            `cluster.cpus` are too few.
    """
    if config.cluster.cpus is not None:
        _check_cpus(config, config.cluster.cpus)
    start_ray(config.cluster, resident_cpus(config) + config.cluster.decode_cpus)


def start_ray(cluster: ClusterSettings, needed: float, *, reached_here_only: bool = False) -> None:
    """Starts a local cluster or joins the configured one, unless this process already has one.

    Args:
        needed: CPUs that must be there at once; a local cluster counts at least as many.
        reached_here_only: whether the cluster to join is the local one of another command.

    Raises:
        ResourceError: no cluster answers at `cluster.address`, none can be started here, or Ray is
            of another version.
    """
    reached_here_only = reached_here_only or cluster.mode == "local"
    wanted = _ENVIRONMENT | _LOCAL if reached_here_only else _ENVIRONMENT
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    guard_token(create=cluster.mode == "local")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import ray

    from tats_ray.actors.cluster_watch import leave_if_lost, watch_daemons
    from tats_ray.actors.ray_compat import (
        check_version,
        daemons_keep_out_of_signals_way,
        keep_daemons_off_the_console,
    )

    check_version()
    if ray.is_initialized():
        leave_if_lost()
        return
    share_one_heap()
    for name in ("ray.rllib", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _PRINT_PAGES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    keep_daemons_off_the_console()
    try:
        with daemons_keep_out_of_signals_way():
            ray.init(**_arguments(cluster, needed))
    except Exception as error:  # Ray raises plain ones too
        raise _start_error(cluster, error) from None
    watch_daemons()


def _arguments(cluster: ClusterSettings, needed: float) -> dict[str, Any]:
    """Of `ray.init`."""
    of_workers = {"OMP_NUM_THREADS": str(cluster.threads)}
    shared: dict[str, Any] = {
        "namespace": _NAMESPACE,
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": {"env_vars": of_workers},
    }
    if cluster.mode == "address":
        return {"address": cluster.address} | shared
    of_workers |= _NO_DASHBOARD
    return shared | {
        "address": "local",
        "num_cpus": cluster.cpus or max(os.cpu_count() or 1, math.ceil(needed)),
        "object_store_memory": cluster.object_store_mb * 2**20,
        "include_dashboard": False,
    }


def share_one_heap() -> None:
    """Lets threads that are started from now on take their memory from the heaps that are there.

    Ray gives this process dozens of threads. With a heap for each, as glibc has it, what they free
    is not given back, and a driver grows several times as fast (docs/architecture.md). A user's own
    MALLOC_ARENA_MAX wins; other systems than glibc are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, 1)


def _start_error(cluster: ClusterSettings, error: Exception) -> ResourceError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if cluster.mode == "address":
        return ResourceError(
            f"cluster.address={cluster.address}: no Ray cluster can be joined ({reason})"
        )
    return ResourceError(
        f"cluster.mode=local: Ray cannot be started ({reason}); a machine that is very busy may "
        "need another try, cluster.mode=serial needs no Ray"
    )


@contextlib.contextmanager
def native_stderr_to(path: Path) -> Iterator[None]:
    """Sends what native code writes to stderr into a file for a while.

    RLlib passes its config to restartable actors by reference, and Ray's core warns of that in red
    at every start, although the driver holds the reference as long as the actors live.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def cluster_resources() -> tuple[float, float]:
    """CPUs and GPUs of the connected cluster."""
    import ray

    resources = ray.cluster_resources()
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


def warn_of_small_store(config: JobConfig, build: Callable[[], nn.Module]) -> None:
    """Warns where the cluster's object store may be too small for what the run of this model holds
    in it."""
    import ray
    import torch

    with torch.device("meta"):  # counted, not made
        parameters = sum(weights.numel() for weights in build().parameters())
    store = ray.cluster_resources().get("object_store_memory", 0.0)
    if warning := store_warning(config, parameters, store):
        log(warning)


def resident_cpus(config: JobConfig) -> float:
    """CPUs that actors hold for the whole run."""
    cluster = config.cluster
    return (
        config.train.workers * cluster.train_worker_cpus
        + config.rollout_workers * cluster.rollout_worker_cpus
        + config.remote_learners * cluster.learner_cpus
    )


_SHARED_TRAIN_GPU = 0.6


def preflight(config: JobConfig, cpus: float, gpus: float) -> Resources:
    """Checks that everything can be placed at once, before anything is.

    Over-subscription does not fail in Ray: an actor waits for a CPU that another waits for, for
    ever and without a word.

    Raises:
        ResourceError: with what is needed by whom, and what there is.
    """
    cluster = config.cluster
    _check_cpus(config, cpus)
    if cluster.train_worker_gpus is None and 0 < gpus < config.train.workers:
        raise ResourceError(
            f"train.workers={config.train.workers} need a GPU each, the cluster has {gpus:g}; "
            "lower train.workers or set cluster.train_worker_gpus=0.0"
        )
    train_share, rl_share = _gpu_shares(config, gpus)
    train_gpus = train_share if cluster.train_worker_gpus is None else cluster.train_worker_gpus
    if not train_gpus:
        rl_share = 0.0  # a run whose Train workers stay on CPUs leaves the GPUs alone
    wanted = (
        config.train.workers * train_gpus
        + (config.rollout_workers + config.remote_learners) * rl_share
    )
    if wanted > gpus + 1e-6:
        raise ResourceError(
            f"the cluster has {gpus:g} GPUs, this run needs {wanted:g}; "
            "lower cluster.train_worker_gpus"
        )
    return Resources(
        cluster.rollout_worker_cpus, rl_share, cluster.learner_cpus, rl_share,
        cluster.train_worker_cpus, train_gpus, cluster.decode_cpus,
    )  # fmt: skip


def _check_cpus(config: JobConfig, cpus: float) -> None:
    cluster, needed = config.cluster, resident_cpus(config) + config.cluster.decode_cpus
    if needed <= cpus + 1e-6:
        return
    parts = [f"{config.train.workers} Train workers x {cluster.train_worker_cpus:g}"]
    if config.rollout_workers:
        parts.append(f"{config.rollout_workers} rollout workers x {cluster.rollout_worker_cpus:g}")
        parts.append(f"{config.remote_learners} PPO learners x {cluster.learner_cpus:g}")
    parts.append(f"1 decode task x {cluster.decode_cpus:g}")
    raise ResourceError(
        f"the cluster has {cpus:g} CPUs, this run needs {needed:g}: {' + '.join(parts)}; lower "
        "cluster.*_cpus, rl.rollout_workers or train.workers"
    )


def _gpu_shares(config: JobConfig, gpus: float) -> tuple[float, float]:
    """Shares of a Train worker, and of a rollout worker or PPO learner.

    One GPU each where there are enough. Else a Train worker takes more than half of one, so that no
    two of them meet on one GPU, which NCCL refuses; the others fill what is left of each.
    """
    others = config.rollout_workers + config.remote_learners
    if gpus == 0 or gpus >= config.train.workers + others:
        return float(gpus > 0), float(gpus > 0)
    left = 100 - round(100 * _SHARED_TRAIN_GPU)
    return _SHARED_TRAIN_GPU, left // math.ceil(others / gpus) / 100
