"""Data-parallel processes of one machine find each other through a file.

PyTorch's usual meeting place, a TCP store, listens on every interface and asks nobody who they are.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend
from ray.train.torch import TorchConfig

_LEAVE_SECONDS = 5.0


@dataclass
class FileRendezvousConfig(TorchConfig):
    """Settings for Ray Train's workers or RLlib's learners, all of them on this machine.

    Attributes:
        share_gpus: each process sees the GPUs of all; RLlib's learners see their own only.
    """

    share_gpus: bool = True

    @property
    def backend_cls(self) -> type:
        return _FileRendezvous if self.share_gpus else _LearnerRendezvous


class _FileRendezvous(Backend):
    """Joins the workers of a group to one process group, and ends it with them."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        self._folder = tempfile.mkdtemp(prefix="tats_ray_")
        setting = {
            "backend": "nccl" if gpus else "gloo",
            "size": len(worker_group),
            "file": f"{self._folder}/meeting",
            "seconds": backend_config.timeout_s,
        }
        ray.get(
            [
                worker_group.execute_single_async(rank, _join, world_rank=rank, **setting)
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        try:
            ray.get(worker_group.execute_async(_leave), timeout=_LEAVE_SECONDS)
        except GetTimeoutError:
            pass  # Ray ends the processes next
        finally:  # also where a worker is dead already
            shutil.rmtree(self._folder, ignore_errors=True)


class _LearnerRendezvous(_FileRendezvous):
    share_cuda_visible_devices = False


def _join(*, world_rank: int, size: int, file: str, backend: str, seconds: int) -> None:
    import torch

    # A collective call that a dead rank never answers ends with an error, not in silence.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    torch.distributed.init_process_group(
        backend,
        init_method=f"file://{file}",
        rank=world_rank,
        world_size=size,
        timeout=timedelta(seconds=seconds),
    )


def _leave() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
