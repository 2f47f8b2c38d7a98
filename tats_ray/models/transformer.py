"""Encoder and decoder of the masked autoencoder: pre-norm transformers over chosen tokens."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Mlp
from timm.models.beit import Block  # biases for queries and values only, as VideoMAE has them
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
        block = CrossBlock if self.crosses else self_block
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
    blocks = Blocks(*(self_block(model.width, model.heads, rate) for rate in rates))
    initialize(blocks)
    return blocks


def self_block(width: int, heads: int, drop_path: float = 0.0) -> Block:
    return Block(width, heads, qkv_bias=True, drop_path=drop_path, norm_layer=Norm)


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
        self.mlp = Mlp(width, 4 * width)

    def forward(self, asked: Tensor, known: Tensor) -> Tensor:
        """[B, q, d] and [B, k, d] -> [B, q, d]."""
        split = partial(rearrange, pattern="b n (h c) -> b h n c", h=self.heads)
        query = split(self.query(self.attention_norm(asked)))
        key, value = (split(part) for part in self.key_value(known).chunk(2, dim=-1))
        read = F.scaled_dot_product_attention(query, key, value)
        asked = asked + self.projection(rearrange(read, "b h n c -> b n (h c)"))
        return asked + self.mlp(self.mlp_norm(asked))
