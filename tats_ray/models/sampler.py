"""TATS's actor and critic: trajectory attention over detached patch tokens -> softmax."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.masking import SamplerSection
from tats_ray.models.trajectory import TrajectoryAttention


class Sampler(Protocol):
    """A policy over the tokens of a clip."""

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Patch tokens [B, N, d] -> log-softmax over the tokens, float32 [B, N]."""
        ...


class PolicyOutput(NamedTuple):
    log_probs: Tensor  # float32 [B, N], log-softmax over the tokens
    value: Tensor  # float32 [B], expected mean reward of the clip


class TrajectoryBlock(nn.Module):
    """Pre-norm trajectory attention with a residual, and optionally a feed-forward part."""

    def __init__(self, section: SamplerSection, frames: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(section.width)
        self.attention = TrajectoryAttention(section.width, section.heads, frames)
        self.mlp = (
            nn.Sequential(nn.LayerNorm(section.width), Mlp(section.width, 4 * section.width))
            if section.mlp
            else None
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens if self.mlp is None else tokens + self.mlp(tokens)


class Trunk(nn.Module):
    """Patch tokens [B, N, token_width] -> features [B, N, width]."""

    def __init__(self, section: SamplerSection, token_width: int, grid: TokenGrid) -> None:
        super().__init__()
        self.embedding = nn.Linear(token_width, section.width)
        # Learned and zero at the start, as AdaMAE's sampler: position matters only if it pays.
        self.positions = nn.Parameter(torch.zeros(grid.tokens, section.width))
        self.blocks = nn.Sequential(
            *(TrajectoryBlock(section, grid.time) for _ in range(section.blocks))
        )
        self.norm = nn.LayerNorm(section.width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embedding(tokens) + self.positions))


class TrajectorySampler(nn.Module):
    """Policy over tokens (actor) and value of a clip (critic).

    Both heads start at zero, so an untrained sampler draws exactly like random masking.
    """

    def __init__(self, section: SamplerSection, token_width: int, grid: TokenGrid) -> None:
        super().__init__()
        self.actor_trunk = Trunk(section, token_width, grid)
        self.actor_head = nn.Linear(section.width, 1, bias=False)  # cancels in the softmax
        self.critic_trunk = None if section.shared_trunk else Trunk(section, token_width, grid)
        self.critic_head = nn.Linear(section.width, 1)
        nn.init.zeros_(self.actor_head.weight)
        nn.init.zeros_(self.critic_head.weight)
        nn.init.zeros_(self.critic_head.bias)

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Actor alone: [B, N, token_width] -> float32 [B, N]."""
        return self._log_probs(self.actor_trunk(tokens.detach()))

    def value(self, tokens: Tensor) -> Tensor:
        """Critic alone: [B, N, token_width] -> float32 [B]."""
        trunk = self.actor_trunk if self.critic_trunk is None else self.critic_trunk
        return self._value(trunk(tokens.detach()))

    def forward(self, tokens: Tensor) -> PolicyOutput:
        """Actor and critic: [B, N, token_width] -> log-probs [B, N] and value [B]."""
        tokens = tokens.detach()
        features = self.actor_trunk(tokens)
        critic = features if self.critic_trunk is None else self.critic_trunk(tokens)
        return PolicyOutput(self._log_probs(features), self._value(critic))

    def _log_probs(self, features: Tensor) -> Tensor:
        logits = self.actor_head(features).float().squeeze(-1)
        return logits.log_softmax(dim=-1)

    def _value(self, features: Tensor) -> Tensor:
        return self.critic_head(features.mean(dim=1)).float().squeeze(-1)


def build_sampler(
    section: SamplerSection, token_width: int, grid: TokenGrid, seed: int
) -> TrajectorySampler:
    """A freshly initialised sampler, the same on every process for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)  # not the autoencoder's numbers
        return TrajectorySampler(section, token_width, grid)
