"""k-nearest-neighbour classification by cosine similarity.

As in DINO (Caron et al. 2021, arXiv:2104.14294, after Wu et al. 2018, arXiv:1805.01978): each of
the k most similar training videos votes for its class with weight exp(similarity / temperature).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 1024  # compared with all training videos at a time


def neighbour_votes(
    known: Tensor, labels: Tensor, asked: Tensor, classes: int, count: int, temperature: float
) -> Tensor:
    """Votes for each class.

    Args:
        known: float [n, D], training features.
        labels: int64 [n], their classes.
        asked: float [m, D].
        count: neighbours that vote, at most all.

    Returns:
        float [m, classes]; -inf for classes without a vote, which are no guesses at all.
    """
    memory = F.normalize(known, dim=1)
    votes = []
    for rows in F.normalize(asked, dim=1).split(_ROWS):
        similarity, nearest = (rows @ memory.T).topk(min(count, len(known)), dim=1)
        weights = torch.exp(similarity / temperature)
        total = weights.new_zeros((len(rows), classes))
        total.scatter_add_(1, labels[nearest], weights)
        votes.append(torch.where(total > 0, total, -torch.inf))
    return torch.cat(votes)
