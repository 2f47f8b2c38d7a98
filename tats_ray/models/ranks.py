"""What the ranks of a data-parallel step tell each other beside gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
