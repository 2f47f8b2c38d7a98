"""Masked video autoencoder on timm blocks: visible-only encoder, light decoder, masks by index."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from timm.models.beit import Block  # biases for queries and values only, as VideoMAE has them
from torch import Tensor, nn

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.model import ModelSettings
from tats_ray.models.initialization import initialize, seeded
from tats_ray.models.tokens import (
    gather_tokens,
    masked_index,
    patchify,
    position_table,
    reconstruction_target,
    standardize,
)

_Norm = partial(nn.LayerNorm, eps=1e-6)


class Reconstruction(NamedTuple):
    """What the decoder made of the chosen masked tokens."""

    prediction: Tensor  # float32 [B, q, V * 3]
    target: Tensor  # float32 [B, q, V * 3]
    error: Tensor  # float32 [B, q], mean squared error of each token


class PatchEmbedding(nn.Module):
    """Linear map of a standardised tubelet: a 3-D convolution whose kernel is its stride."""

    def __init__(self, values: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(values * 3, width)

    def forward(self, patches: Tensor) -> Tensor:
        """float [B, k, V, 3] in [0, 1] -> [B, k, width], without positions."""
        return self.projection(standardize(patches).flatten(2))


class Encoder(nn.Module):
    """ViT over the visible tokens."""

    positions: Tensor

    def __init__(self, model: ModelSettings, grid: TokenGrid) -> None:
        super().__init__()
        self.blocks = encoder_blocks(model)
        self.norm = _Norm(model.width)
        positions = position_table(model.positions, grid, model.width)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Embedded visible tokens [B, k, d] and their index int64 [B, k] -> features [B, k, d]."""
        return self.norm(self.blocks(tokens + self.positions[visible]))


class Decoder(nn.Module):
    """Narrow ViT over visible features and mask tokens; returns the mask tokens' predictions."""

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
        width, heads, depth = model.decoder.width, model.decoder.heads, model.decoder.depth
        self.embedding = nn.Linear(model.width, width, bias=False)
        if mask_token is None:  # normal with a deviation of .02, cut off at one deviation
            start = nn.init.trunc_normal_(torch.empty(width), std=0.02, a=-0.02, b=0.02)
            mask_token = nn.Parameter(start)
        self.mask_token = mask_token
        self.blocks = nn.Sequential(*(_block(width, heads) for _ in range(depth)))
        self.norm = _Norm(width)
        self.head = nn.Linear(width, values)
        for part in (self.blocks, self.head):
            initialize(part)
        positions = position_table(model.positions, grid, width)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, features: Tensor, visible: Tensor, targets: Tensor) -> Tensor:
        """Features [B, k, d] at int64 [B, k] -> predictions at int64 [B, q]: [B, q, values]."""
        known = self.embedding(features) + self.positions[visible]
        asked = self.mask_token + self.positions[targets]
        tokens = self.blocks(torch.cat([known, asked.to(known.dtype)], dim=1))
        return self.head(self.norm(tokens[:, -targets.shape[1] :]))


class MaskedAutoencoder(nn.Module):
    """VideoMAE's model (1-D sinusoid positions, no class token) with masks given as indices."""

    def __init__(self, model: ModelSettings, grid: TokenGrid) -> None:
        """Args: grid: of the clips, as `TokenGrid(8, 14, 14)` at 16 x 224 x 224."""
        super().__init__()
        self.settings = model
        self.grid = grid
        values = model.tubelet * model.patch**2
        self.patch_embedding = PatchEmbedding(values, model.width)
        self.encoder = Encoder(model, grid)
        frames = model.target.frames
        predicted = values if frames is None else frames // grid.time * model.patch**2
        self.decoder = Decoder(model, grid, predicted * 3)

    def patches(self, pixels: Tensor) -> Tensor:
        """float [B, 3, T, H, W] in [0, 1] -> float [B, N, V, 3]."""
        return patchify(pixels, self.settings.tubelet, self.settings.patch)

    def encode(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Features of the visible tokens, [B, k, width]; only these are ever embedded."""
        return self.encoder(self.patch_embedding(gather_tokens(patches, visible)), visible)

    def forward(self, patches: Tensor, visible: Tensor, targets: Tensor) -> Reconstruction:
        """Reconstructs the masked tokens int64 [B, q] of patches float [B, N, V, 3] in [0, 1]
        from the visible ones int64 [B, k]."""
        return self.reconstruct(patches, self.encode(patches, visible), visible, targets)

    def reconstruct(
        self, patches: Tensor, features: Tensor, visible: Tensor, targets: Tensor
    ) -> Reconstruction:
        """The decoder's part of `forward`, from the visible tokens' features [B, k, width]."""
        prediction = self.decoder(features, visible, targets).float()
        chosen = self.predicted_pixels(patches, targets)
        target = reconstruction_target(chosen, self.settings.target)
        return Reconstruction(prediction, target, (prediction - target).square().mean(dim=-1))

    def predicted_pixels(self, patches: Tensor, targets: Tensor) -> Tensor:
        """Pixels of the targets that are predicted, [B, q, V', 3]: all of them, or with
        `target.frames` those of evenly spaced frames of the clip (MAE-ST)."""
        chosen = gather_tokens(patches, targets)
        frames, tubelet, time = self.settings.target.frames, self.settings.tubelet, self.grid.time
        if frames is None:
            return chosen
        places = torch.linspace(0, time * tubelet - 1, frames, device=targets.device).long()
        starts = torch.arange(time, device=targets.device) * tubelet
        within = places.view(time, -1) - starts[:, None]  # [T', predicted frames of a slice]
        by_frame = chosen.unflatten(2, (tubelet, -1))
        index = within[targets // self.grid.per_slice][..., None, None]
        return by_frame.gather(2, index.expand(-1, -1, -1, *by_frame.shape[3:])).flatten(2, 3)


def target_index(visible: Tensor, tokens: int, count: int, noise: Tensor | None) -> Tensor:
    """Masked tokens that the decoder predicts.

    Args:
        visible: int64 [B, k].
        count: q, at most tokens - k.
        noise: float [B, tokens] that chooses the subset; None predicts every masked token.

    Returns:
        int64 [B, q], ascending.
    """
    masked = masked_index(visible, tokens)
    if noise is None:
        return masked
    chosen = noise.gather(1, masked).topk(count, dim=1, sorted=False).indices
    return masked.gather(1, chosen).sort(dim=1).values


def build_mae(model: ModelSettings, grid: TokenGrid, seed: int) -> MaskedAutoencoder:
    """A freshly initialised autoencoder, as `seeded`."""
    return seeded(seed, lambda: MaskedAutoencoder(model, grid))


def encoder_blocks(model: ModelSettings, drop_path: float = 0.0) -> nn.Sequential:
    """The encoder's transformer; the drop path grows linearly from 0 to that of the last block."""
    rates = [drop_path * block / max(1, model.depth - 1) for block in range(model.depth)]
    blocks = nn.Sequential(*(_block(model.width, model.heads, rate) for rate in rates))
    initialize(blocks)
    return blocks


def _block(width: int, heads: int, drop_path: float = 0.0) -> Block:
    return Block(width, heads, qkv_bias=True, drop_path=drop_path, norm_layer=_Norm)
