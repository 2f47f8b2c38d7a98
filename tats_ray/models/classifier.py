"""Video classifier on the pre-trained encoder: all tokens, mean pooling, norm, linear head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.model import ModelSettings
from tats_ray.models.mae import PatchEmbedding
from tats_ray.models.tokens import patchify, position_table
from tats_ray.models.transformer import encoder_blocks

HEAD_SCALE = 0.001  # of the linear layer's initial weights (VideoMAE's init_scale)


class VideoClassifier(nn.Module):
    """VideoMAE's fine-tuned model. The encoder's own last norm gives way to one behind the mean."""

    positions: Tensor

    def __init__(
        self,
        model: ModelSettings,
        grid: TokenGrid,
        classes: int,
        *,
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        """
        Args:
            drop_path: probability of the last block; falls linearly to 0 at the first.
            dropout: before the linear layer.
        """
        super().__init__()
        self.tubelet, self.patch = model.tubelet, model.patch
        self.patch_embedding = PatchEmbedding(model.tubelet * model.patch**2, model.width)
        self.blocks = encoder_blocks(model, drop_path)
        self.norm = nn.LayerNorm(model.width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(model.width, classes)
        positions = position_table(model.positions, grid, model.width)
        self.register_buffer("positions", positions, persistent=False)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.weight *= HEAD_SCALE

    def forward(self, pixels: Tensor) -> Tensor:
        """float [B, 3, T, S, S] in [0, 1] -> logits float [B, classes]."""
        patches = patchify(pixels, self.tubelet, self.patch)
        tokens = self.blocks(self.patch_embedding(patches) + self.positions)
        return self.head(self.dropout(self.norm(tokens.mean(dim=1))))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's description of the layers, from the input to the head."""
        return {
            "stem": r"^patch_embedding",
            "blocks": r"^blocks\.(\d+)",
            "top": r"^(?:norm|head)",
        }


def build_layered_adamw(
    model: VideoClassifier,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    layer_decay: float,
) -> torch.optim.AdamW:
    """AdamW whose rate falls by `layer_decay` per layer from the head (1) to the patch embedding
    (layer_decay ^ (depth + 1)); biases and norms do not decay."""
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(model, weight_decay, layer_decay=layer_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
