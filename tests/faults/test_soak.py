"""A thousand small rounds: memory, files, threads and objects stay where they are."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from ray._private.internal_api import node_stats

from tests.conftest import tiny_config
from tests.iterations import drive, pretraining, ray_executor, starting_point
from tests.processes import workers

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(900)]

ROUNDS, WARM_UP, EVERY = 1000, 300, 10
MB = 10**6
# The parts of a run, by their processes' titles; decode tasks move between idle workers.
PARTS = ("MaskingEnvRunner", "RayTrainWorker", "Hub", "TrainController")


def _processes():
    """The driver and the processes of the run's parts."""
    return [psutil.Process(os.getpid()), *(one for part in PARTS for one in workers(part))]


def _threads(pid):
    """Without gRPC's pool, which has some more threads for as long as it is busy."""
    count = 0
    for name in Path(f"/proc/{pid}/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # one that has just ended
            count += name.read_text() != "event_engine\n"
    return count


def _objects():
    gc.collect()  # an execution of Ray Data leaves cycles with references to its input
    (node,) = [found for found in ray.nodes() if found["Alive"]]
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
    return stats.num_local_objects


def _sample():
    """Per process what it alone holds; and counts of the whole."""
    processes = _processes()
    memory = {process.pid: process.memory_full_info().uss for process in processes}
    files = sum(process.num_fds() for process in processes)
    threads = sum(_threads(process.pid) for process in processes)
    return memory, files, threads, _objects()


def _slope(values):
    """Growth per 100 rounds, by a line through all samples."""
    return float(np.polyfit(np.arange(len(values)) * EVERY / 100, values, 1)[0])


def test_a_thousand_rounds_leave_nothing_behind(synthetic, tmp_path):
    config = tiny_config(
        "cluster.mode=local", f"train.steps={ROUNDS}", "rl.staleness=1",
        # Blocks too large for Ray to keep in the driver itself, as those of any real video are;
        # and few of them, since Ray Data leaves some KB in the driver for each.
        "data.block_clips=16", "data.prefetch_blocks=16",
    )  # fmt: skip
    samples = []

    def sample(executor, step):
        if step >= WARM_UP and step % EVERY == 0:
            samples.append(_sample())

    opening = ray_executor(pretraining(config, synthetic.train), starting_point(tmp_path))
    drive(opening, ROUNDS, between=sample)
    memory, files, threads, objects = zip(*samples, strict=True)
    growth = {pid: _slope([one[pid] / MB for one in memory]) for pid in memory[0]}
    left = {"files": _slope(files), "threads": _slope(threads), "objects": _slope(objects)}
    print(f"per 100 rounds: MB {growth}, {left}; from and to {samples[0][1:]}, {samples[-1][1:]}")
    assert len(growth) >= 4, "driver, rollout worker, Train worker and hub were watched"
    assert max(growth.values()) <= 1.0
    assert left["files"] <= 0.5
    assert left["threads"] <= 0.5
    # Windows of decoded blocks come and go, so that objects swing between 45 and 120. No sample
    # tells much, but a line through all of them shows one object that is left in 20 rounds.
    assert left["objects"] <= 5
