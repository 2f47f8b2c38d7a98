"""One local Ray cluster for all tests of this folder, with logical CPUs."""

from __future__ import annotations

import os

from tests.ray.environment import ENVIRONMENT

os.environ.update(ENVIRONMENT)
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")

import logging

import pytest
import ray

from tats_ray.actors.cluster import share_one_heap


@pytest.fixture(scope="session")
def cluster():
    if ray.is_initialized():  # by tests/ray, where tests/faults runs behind it
        yield
        return
    share_one_heap()  # as every command does
    ray.init(
        address="local",
        num_cpus=8,
        object_store_memory=512 * 2**20,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        namespace="tests",
        # No dashboard, nor Ray Train's wait for one.
        runtime_env={
            "env_vars": {"OMP_NUM_THREADS": "1", "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}
        },
    )
    yield
    ray.shutdown()
