"""Encoder and decoder of the masked autoencoder: pre-norm transformers over chosen tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.model import ModelSettings
from tats_ray.models.initialization import initialize
from tats_ray.models.tokens import position_table

Norm = partial(nn.LayerNorm, eps=1e-6)


class Blocks(nn.Sequential):
    """The blocks of a transformer, one after the other.

    With `recompute` the backward pass computes each block again, instead of keeping what it
    computed: the same numbers with less memory.
    """

    recompute = False

    def forward(self, tokens: Tensor, *others: Tensor) -> Tensor:
        """Args: others: what every block is given beside the tokens."""
        for block in self:
            if self.recompute and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, *others, use_reentrant=False)
            else:
                tokens = block(tokens, *others)
        return tokens


def set_recompute(model: nn.Module, recompute: bool) -> None:
    """Sets `recompute` for all transformers of a model."""
    for part in model.modules():
        if isinstance(part, Blocks):
            part.recompute = recompute


class Encoder(nn.Module):
    """ViT over the visible tokens."""

    positions: Tensor

    def __init__(self, model: ModelSettings, grid: TokenGrid) -> None:
        super().__init__()
        self.blocks = encoder_blocks(model)
        self.norm = Norm(model.width)
        positions = position_table(model.positions, grid, model.width)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Embedded visible tokens [B, k, d] and their index int64 [B, k] -> features [B, k, d]."""
        return self.norm(self.blocks(tokens + self.positions[visible]))


class Decoder(nn.Module):
    """Narrow transformer that predicts the targets from the features of the visible tokens.

    With self-attention all of them attend to one another (VideoMAE). With cross-attention each
    target reads the visible tokens alone (CrossMAE, Fu et al. 2025, section 3.2), so that a target
    is predicted alike whatever others are, and half of the targets cost half.
    """

    positions: Tensor

    def __init__(
        self,
        model: ModelSettings,
        grid: TokenGrid,
        values: int,
        mask_token: nn.Parameter | None = None,
    ) -> None:
        """Sizes are those of `model.decoder`.

        Args:
            values: numbers predicted per token.
            mask_token: another decoder's, to share it.
        """
        super().__init__()
        self.crosses = model.decoder.attention == "cross"
        width, heads, depth = model.decoder.width, model.decoder.heads, model.decoder.depth
        self.embedding = nn.Linear(model.width, width, bias=False)
        if mask_token is None:  # normal with a deviation of .02, cut off at one deviation
            start = nn.init.trunc_normal_(torch.empty(width), std=0.02, a=-0.02, b=0.02)
            mask_token = nn.Parameter(start)
        self.mask_token = mask_token
        block = CrossBlock if self.crosses else SelfBlock
        self.blocks = Blocks(*(block(width, heads) for _ in range(depth)))
        self.norm = Norm(width)
        self.head = nn.Linear(width, values)
        for part in (self.blocks, self.head):
            initialize(part)
        positions = position_table(model.positions, grid, width)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, features: Tensor, visible: Tensor, targets: Tensor) -> Tensor:
        """Features [B, k, d] at int64 [B, k] -> predictions at int64 [B, q]: [B, q, values]."""
        known = self.embedding(features) + self.positions[visible]
        asked = (self.mask_token + self.positions[targets]).to(known.dtype)
        if self.crosses:
            return self.head(self.norm(self.blocks(asked, known)))
        tokens = self.blocks(torch.cat([known, asked], dim=1))
        return self.head(self.norm(tokens[:, -targets.shape[1] :]))


def encoder_blocks(model: ModelSettings, drop_path: float = 0.0) -> Blocks:
    """The encoder's transformer; the drop path grows linearly from 0 to that of the last block."""
    rates = [drop_path * block / max(1, model.depth - 1) for block in range(model.depth)]
    blocks = Blocks(*(SelfBlock(model.width, model.heads, drop_path=rate) for rate in rates))
    initialize(blocks)
    return blocks


class SelfBlock(nn.Module):
    """Self-attention and a feed-forward part. Written here and not taken from timm, whose import
    takes as long as PyTorch's own, in every process; names of weights are timm's and VideoMAE's."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        drop_path: float = 0.0,
        bias: bool = True,
        dropout: float = 0.0,
        norm: Callable[[int], nn.Module] = Norm,
    ) -> None:
        """
        Args:
            drop_path: probability that a clip skips a branch.
            bias: whether queries and values have one, as VideoMAE's.
            dropout: behind either branch.
        """
        super().__init__()
        self.norm1 = norm(width)
        self.attn = SelfAttention(width, heads, bias=bias, dropout=dropout)
        self.norm2 = norm(width)
        self.mlp = Mlp(width, dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, d] -> [B, N, d]."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class SelfAttention(nn.Module):
    """Multi-head attention with biases for queries and values only: those of keys would cancel."""

    def __init__(self, width: int, heads: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, d] -> [B, N, d]."""
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        joint = F.linear(tokens, self.qkv.weight, bias)
        query, key, value = rearrange(joint, "b n (s h c) -> s b h n c", s=3, h=self.heads)
        read = F.scaled_dot_product_attention(query, key, value)
        return self.proj_drop(self.proj(rearrange(read, "b h n c -> b n (h c)")))


class Mlp(nn.Module):
    """The feed-forward part: four times as wide inside."""

    def __init__(self, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        return self.drop(self.fc2(F.gelu(self.fc1(tokens))))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): leaves a branch out for some clips in training, and
    makes up for it with the others."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]."""
        if not self.training or self.probability == 0:
            return branch
        keep = 1 - self.probability
        kept = branch.new_empty(len(branch), *[1] * (branch.dim() - 1)).bernoulli_(keep)
        return branch * kept.div_(keep)


class CrossBlock(nn.Module):
    """Cross-attention and a feed-forward part: what is asked reads what is known, and nothing that
    is asked sees another question."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = Norm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.projection = nn.Linear(width, width)
        self.mlp_norm = Norm(width)
        self.mlp = Mlp(width)

    def forward(self, asked: Tensor, known: Tensor) -> Tensor:
        """[B, q, d] and [B, k, d] -> [B, q, d]."""
        split = partial(rearrange, pattern="b n (h c) -> b h n c", h=self.heads)
        query = split(self.query(self.attention_norm(asked)))
        key, value = (split(part) for part in self.key_value(known).chunk(2, dim=-1))
        read = F.scaled_dot_product_attention(query, key, value)
        asked = asked + self.projection(rearrange(read, "b h n c -> b n (h c)"))
        return asked + self.mlp(self.mlp_norm(asked))
