"""Trajectory attention (Motionformer, Patrick et al. 2021, eq. 3-7) without its cost.

Stage 1 lets every token attend to each frame on its own, which follows it along a probabilistic
trajectory; stage 2 attends over the trajectory. As published, stage 2 projects all N x F trajectory
tokens. Here the projections move to the N queries and N outputs, which is exact:
<W_q x, W_k y> = <W_k^T W_q x, y> and sum_f a_f (W_v y_f + b) = W_v sum_f a_f y_f + b.
This is the published equations' form (Motionformer's `use_original_code=False`), without a class
token.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tats_ray.errors import ConfigError


class TrajectoryAttention(nn.Module):
    """Multi-head trajectory attention over frame-major tokens.

    Args:
        width: d, divisible by `heads`.
        heads: h.
        frames: F, time slices of the token grid.

    Raises:
        ConfigError: the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, frames: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"sampler: width {width} is not divisible by heads {heads}")
        self.heads = heads
        self.frames = frames
        # Key biases would cancel in either softmax.
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.trajectory_query = nn.Linear(width, width)
        self.trajectory_key = nn.Linear(width, width, bias=False)
        self.trajectory_value = nn.Linear(width, width)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, d] -> [B, N, d]."""
        trajectories = self._follow(tokens)
        return self.projection(self._pool(trajectories))

    def _follow(self, tokens: Tensor) -> Tensor:
        """Attention of every token to each frame: [B, N, d] -> trajectory tokens [B, N, F, d]."""
        frames, heads = self.frames, self.heads
        query = rearrange(self.query(tokens), "b n (h c) -> b 1 h n c", h=heads).expand(
            -1, frames, -1, -1, -1
        )
        key = rearrange(self.key(tokens), "b (f p) (h c) -> (b f) h p c", f=frames, h=heads)
        value = rearrange(self.value(tokens), "b (f p) (h c) -> (b f) h p c", f=frames, h=heads)
        seen = F.scaled_dot_product_attention(query.flatten(0, 1), key, value)
        return rearrange(seen, "(b f) h n c -> b n f (h c)", f=frames)

    def _pool(self, trajectories: Tensor) -> Tensor:
        """Attention along each trajectory: [B, N, F, d] -> [B, N, d]."""
        heads, frames = self.heads, self.frames
        batch, tokens, _, width = trajectories.shape
        channels = width // heads
        # Each token's trajectory at the token's own frame asks the questions.
        own = trajectories.view(batch, frames, tokens // frames, frames, width)
        own = own.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).reshape(batch, tokens, width)
        query = self.trajectory_query(own).view(batch, tokens, heads, channels) * channels**-0.5
        key_weight = self.trajectory_key.weight.view(heads, channels, width)
        question = _per_head(query, key_weight)  # [B, N, h, d]
        weights = (question @ trajectories.transpose(-1, -2)).softmax(dim=-1)  # [B, N, h, F]
        pooled = weights @ trajectories  # [B, N, h, d]
        value_weight = self.trajectory_value.weight.view(heads, channels, width)
        answer = _per_head(pooled, value_weight.transpose(1, 2))  # [B, N, h, c]
        return answer.reshape(batch, tokens, width) + self.trajectory_value.bias


def _per_head(values: Tensor, weights: Tensor) -> Tensor:
    """[B, N, h, i] x [h, i, o] -> [B, N, h, o], one matrix per head."""
    batch, tokens, heads, _ = values.shape
    flat = values.permute(2, 0, 1, 3).flatten(1, 2)  # [h, B N, i]
    product = flat @ weights.to(flat.dtype)
    return product.view(heads, batch, tokens, -1).permute(1, 2, 0, 3)
