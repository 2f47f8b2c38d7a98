"""Video classifier on the pre-trained encoder: all tokens, mean pooling, norm, linear head."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.models.mae import PatchEmbedding, encoder_blocks, initialize
from tats_ray.models.positions import position_table
from tats_ray.models.tokens import patchify

HEAD_SCALE = 0.001  # of the linear layer's initial weights (VideoMAE's init_scale)


class VideoClassifier(nn.Module):
    """VideoMAE's fine-tuned model. The encoder's own last norm gives way to one behind the mean."""

    positions: Tensor

    def __init__(self, config: FinetuneConfig, classes: int) -> None:
        super().__init__()
        model = config.model
        self.tubelet, self.patch = model.tubelet, model.patch
        self.patch_embedding = PatchEmbedding(model.tubelet * model.patch**2, model.width)
        self.blocks = encoder_blocks(model, config.classifier.drop_path)
        self.norm = nn.LayerNorm(model.width, eps=1e-6)
        self.dropout = nn.Dropout(config.classifier.dropout)
        self.head = nn.Linear(model.width, classes)
        positions = position_table(model.positions, config.grid, model.width)
        self.register_buffer("positions", positions, persistent=False)
        self.apply(initialize)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
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


def build_classifier(config: FinetuneConfig, classes: int) -> VideoClassifier:
    """A freshly initialised model, the same on every process for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        return VideoClassifier(config, classes)


def build_layered_adamw(model: VideoClassifier, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW whose rate falls by `train.layer_decay` per layer from the head (1) to the patch
    embedding (decay ^ (depth + 1)); biases and norms do not decay."""
    train = config.train
    groups = param_groups_layer_decay(model, train.weight_decay, layer_decay=train.layer_decay)
    betas = (train.betas[0], train.betas[1])
    return torch.optim.AdamW(groups, lr=train.lr, betas=betas, fused=True)
