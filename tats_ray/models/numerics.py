"""Precision and devices, and non-finite losses and gradients: how they spread over the ranks, and
whose they were.

The ranks average their gradients, so one rank's NaN reaches all of them and all leave the same step
out. Nothing here synchronises with the device before a step has failed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """This process among the `size` that step together; the default is a process alone."""

    rank: int = 0
    size: int = 1

    def mean(self, table: Tensor) -> Tensor:
        """The mean over the ranks; every rank calls it with a tensor of the same shape."""
        if self.size > 1:
            torch.distributed.all_reduce(table)
            table /= self.size
        return table

    def gather(self, row: Tensor) -> Tensor:
        """Every rank's row, [size, n]; every rank calls it with a row of the same length n."""
        if self.size == 1:
            return row[None]
        rows = [torch.empty_like(row) for _ in range(self.size)]
        torch.distributed.all_gather(rows, row)
        return torch.stack(rows)


ALONE = Ranks()


def spread(loss: Tensor) -> Tensor:
    """The loss, whose gradient is NaN everywhere where the loss is not finite.

    A loss can overflow behind a finite gradient; so the gradient alone tells of a bad step.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)


class OwnGradients:
    """Records whether this rank's gradients were finite before they are averaged over the ranks."""

    def __init__(self, model: DistributedDataParallel, device: torch.device) -> None:
        self._bad = torch.zeros((), device=device)
        # DDP refuses a hook whose annotations are strings, as they all are here.
        model.register_comm_hook(self, lambda own, bucket: own.record_and_average(bucket))

    def record_and_average(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """DDP's communication hook: what DDP does without one, behind a look at the bucket."""
        # The largest magnitude: unlike a sum it does not overflow.
        largest = torch.linalg.vector_norm(bucket.buffer(), math.inf)
        self._bad = torch.maximum(self._bad, nonfinite(largest))
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]

    def take(self) -> Tensor:
        """1.0 on the device where a part recorded since the last call was not finite, else 0.0."""
        bad, self._bad = self._bad, torch.zeros_like(self._bad)
        return bad


def nonfinite(value: Tensor) -> Tensor:
    """1.0 where a scalar is NaN or infinite, else 0.0, on its device."""
    return (~torch.isfinite(value)).float()


def locate(ranks: Ranks, own: Tensor, clips: np.ndarray) -> tuple[list[int], tuple[int, ...]]:
    """Whose step was not finite. Every rank calls it for the same step and learns the same.

    Args:
        own: scalar on the device, as `OwnGradients.take` gives it.
        clips: int64 [b], places of this rank's clips; as many on every rank.

    Returns:
        The ranks, and the places of their clips. All ranks where only their sum overflowed.
    """
    row = torch.cat([own[None].double(), torch.from_numpy(clips).to(own.device).double()])
    rows = ranks.gather(row).tolist()
    at_fault = [rank for rank, told in enumerate(rows) if told[0]] or list(range(ranks.size))
    return at_fault, tuple(int(place) for rank in at_fault for place in rows[rank][1:])


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 autocast where `precision` asks for it; `auto` means on a GPU that has it in hardware:
    older ones only emulate bf16."""
    enabled = precision == "bf16" or (
        precision == "auto"
        and device.type == "cuda"
        and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def default_device() -> torch.device:
    """The process's GPU where it sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
