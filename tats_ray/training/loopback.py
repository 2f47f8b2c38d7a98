"""Train workers of one machine meet in a file.

PyTorch's usual meeting place, a TCP store, listens on every interface and asks nobody who they are.
"""

from __future__ import annotations

import shutil
import tempfile
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


class _LoopbackBackend(_TorchBackend):
    """Ray's hooks are internal, which is why they are touched here only."""

    def on_start(self, worker_group: Any, backend_config: LoopbackTorchConfig) -> None:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        worker_group.execute(_set_torch_distributed_env_vars)
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

    def on_shutdown(self, worker_group: Any, backend_config: LoopbackTorchConfig) -> None:
        super().on_shutdown(worker_group, backend_config)
        shutil.rmtree(self._folder, ignore_errors=True)
