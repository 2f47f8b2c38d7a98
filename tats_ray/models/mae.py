"""Masked video autoencoder: visible-only encoder, light decoder, masks by index."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.model import ModelSettings
from tats_ray.models.initialization import seeded
from tats_ray.models.tokens import (
    copy_error,
    gather_tokens,
    masked_index,
    patchify,
    reconstruction_target,
    standardize,
)
from tats_ray.models.transformer import Decoder, Encoder


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

    def copy_error(self, patches: Tensor, targets: Tensor) -> Tensor:
        """Error of copying each target from its place one time slice before or after, whichever is
        better, in the unit of the reconstruction error: float32 [B, q]."""
        pixels = patches
        if self.settings.target.frames is not None:
            everything = torch.arange(self.grid.tokens, device=patches.device)
            pixels = self.predicted_pixels(patches, everything.expand(len(patches), -1))
        wanted = reconstruction_target(pixels, self.settings.target)
        return copy_error(wanted, self.grid).gather(1, targets)

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
