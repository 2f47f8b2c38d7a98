"""RLlib's learners of one machine meet in a file, and so do Train workers.

PyTorch's usual meeting place, a TCP store, listens on every interface and asks nobody who they are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)


@dataclass
class LoopbackTorchConfig(TorchConfig):
    """Ray Train's settings for workers that are all on this machine."""

    @property
    def backend_cls(self) -> type:
        return _LoopbackBackend


@contextmanager
def learners_on_loopback() -> Iterator[None]:
    """For RLlib's learners that are all on this machine, around whatever starts them.

    RLlib has no setting for how its learners meet: it asks a function of its module.
    """
    from ray.rllib.core.learner import learner_group

    published = learner_group._get_backend_config
    learner_group._get_backend_config = lambda learner_class: _LearnerConfig()
    try:
        yield
    finally:
        learner_group._get_backend_config = published


@dataclass
class _LearnerConfig(TorchConfig):
    @property
    def backend_cls(self) -> type:
        return _LearnerBackend


class _LoopbackBackend(_TorchBackend):
    """Ray's hooks are internal, which is why they are touched here only."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_set_torch_distributed_env_vars)
        self._meet(worker_group, backend_config)

    def _meet(self, worker_group: Any, backend_config: TorchConfig) -> None:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        self._folder = tempfile.mkdtemp(prefix="tats_ray_")
        setting = {
            "backend": "nccl" if gpus else "gloo",
            "world_size": len(worker_group),
            "init_method": f"file://{self._folder}/meeting",
            "timeout_s": backend_config.timeout_s,
        }
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _setup_torch_process_group, world_rank=rank, **setting
                )
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        try:
            super().on_shutdown(worker_group, backend_config)
        finally:  # also where a worker is dead already
            shutil.rmtree(self._folder, ignore_errors=True)


class _LearnerBackend(_LoopbackBackend):
    """RLlib's workers are of Ray Train's first version: they know no ranks before training, and
    each sees its own GPU only."""

    share_cuda_visible_devices = False

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        self._meet(worker_group, backend_config)
