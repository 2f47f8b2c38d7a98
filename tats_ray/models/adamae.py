"""AdaMAE's sampler and sampling loss (Bandara et al. 2023, settings 3.3; details as its code)."""

from __future__ import annotations

import torch
from timm.models.beit import Block
from torch import Tensor, nn

from tats_ray.config.geometry import TokenGrid
from tats_ray.models.initialization import initialize

_MLP_RATIO = 4.0


class AdaMAESampler(nn.Module):
    """One transformer block over the patch tokens and its own positions, linear, softmax."""

    def __init__(
        self, width: int, grid: TokenGrid, *, heads: int = 8, dropout: float = 0.1
    ) -> None:
        """Args: width: d of the patch tokens, divisible by `heads`."""
        super().__init__()
        # Zero at the start; decayed like a matrix, as the code does.
        self.position_embedding = nn.Parameter(torch.zeros(grid.tokens, width))
        self.block = Block(
            width,
            heads,
            qkv_bias=False,
            mlp_ratio=_MLP_RATIO,
            proj_drop=dropout,
            norm_layer=nn.LayerNorm,
        )
        # As the code: what the hidden layer gives is not dropped, as timm would.
        self.block.mlp.drop1 = nn.Identity()
        self.head = nn.Linear(width, 1)
        initialize(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Patch tokens [B, N, width] -> log-probabilities, float32 [B, N]."""
        logits = self.head(self.block(tokens + self.position_embedding))
        return logits.float().squeeze(-1).log_softmax(dim=-1)

    def log_probs(self, tokens: Tensor) -> Tensor:
        return self(tokens)


def sampling_loss(log_probs: Tensor, targets: Tensor, error: Tensor) -> Tensor:
    """-mean over the masked tokens of log p x error; the error is a constant.

    The code's form of the paper's equation 4 (a mean of log p instead of a sum of p).

    Args:
        log_probs: float32 [B, N].
        targets: int64 [B, q], predicted masked tokens.
        error: float32 [B, q].
    """
    return -(log_probs.gather(1, targets) * error.detach()).mean()
