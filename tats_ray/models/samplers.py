"""Samplers: TATS's actor and critic, trajectory attention over detached patch tokens -> softmax;
AdaMAE's with its sampling loss (Bandara et al. 2023, section 3.3; details as its code)."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tats_ray.config.geometry import TokenGrid
from tats_ray.models.initialization import initialize
from tats_ray.models.trajectory import TrajectoryAttention
from tats_ray.models.transformer import Mlp, SelfBlock


class Sampler(Protocol):
    """A policy over the tokens of a clip."""

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Patch tokens [B, N, d] -> log-softmax over the tokens, float32 [B, N]."""
        ...


class PolicyOutput(NamedTuple):
    log_probs: Tensor  # float32 [B, N], log-softmax over the tokens
    value: Tensor | None  # float32 [B], expected mean reward of the clip; None without a critic


class TrajectoryBlock(nn.Module):
    """Pre-norm trajectory attention with a residual, and optionally a feed-forward part."""

    def __init__(self, width: int, heads: int, frames: int, *, mlp: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = TrajectoryAttention(width, heads, frames)
        self.mlp = nn.Sequential(nn.LayerNorm(width), Mlp(width)) if mlp else None

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens if self.mlp is None else tokens + self.mlp(tokens)


class Trunk(nn.Module):
    """What is seen of the tokens [B, N, token_width] -> features [B, N, width].

    With `pool` p attention is among the means of p x p neighbours, which costs p^4 times less;
    each token adds to its own embedding what its group has found.
    """

    def __init__(
        self,
        token_width: int,
        grid: TokenGrid,
        *,
        width: int,
        heads: int,
        mlp: bool,
        pool: int,
    ) -> None:
        super().__init__()
        self._pool, self._grid = pool, grid
        self.embedding = nn.Linear(token_width, width)
        # Learned and zero at the start, as AdaMAE's sampler: position matters only if it pays.
        self.positions = nn.Parameter(torch.zeros(grid.tokens, width))
        self.block = TrajectoryBlock(width, heads, grid.time, mlp=mlp)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.embedding(tokens) + self.positions
        if self._pool == 1:
            return self.norm(self.block(tokens))
        grid, pool = self._grid, self._pool
        picture = rearrange(tokens, "b (t r c) d -> (b t) d r c", r=grid.rows, c=grid.columns)
        means = F.avg_pool2d(picture, pool, ceil_mode=True)  # of what there is at the edges
        groups = rearrange(means, "(b t) d i j -> b (t i j) d", t=grid.time)
        found = rearrange(
            self.block(groups), "b (t i j) d -> (b t) i j d", t=grid.time, j=means.shape[-1]
        )
        found = found.repeat_interleave(pool, dim=1).repeat_interleave(pool, dim=2)
        found = found[:, : grid.rows, : grid.columns]
        return self.norm(tokens + rearrange(found, "(b t) r c d -> b (t r c) d", t=grid.time))


class TrajectorySampler(nn.Module):
    """Policy over tokens (actor) and, where it has one, value of a clip (critic).

    The heads start at zero, so an untrained sampler draws exactly like random masking.
    """

    def __init__(
        self,
        token_width: int,
        grid: TokenGrid,
        *,
        width: int = 384,
        heads: int = 6,
        mlp: bool = False,
        critic: Literal["own", "shared", "none"] = "own",
        pool: int = 1,
    ) -> None:
        """
        Args:
            token_width: d of the patch tokens that the sampler reads.
            width: of the sampler itself, divisible by `heads`.
            mlp: adds a feed-forward part behind the attention.
            critic: on a trunk of its own, or on the actor's at half the cost, or there is none.
            pool: side of the groups of tokens that attend to one another as one.

        Raises:
            ConfigError: the heads do not divide the width.
        """
        super().__init__()
        trunk = partial(Trunk, token_width, grid, width=width, heads=heads, mlp=mlp, pool=pool)
        self.actor_trunk = trunk()
        self.actor_head = nn.Linear(width, 1, bias=False)  # cancels in the softmax
        self.critic_trunk = trunk() if critic == "own" else None
        self.critic_head = None if critic == "none" else nn.Linear(width, 1)
        nn.init.zeros_(self.actor_head.weight)
        if self.critic_head is not None:
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
        log_probs = self._log_probs(features)
        if self.critic_head is None:
            return PolicyOutput(log_probs, None)
        critic = features if self.critic_trunk is None else self.critic_trunk(tokens)
        return PolicyOutput(log_probs, self._value(critic))

    def _log_probs(self, features: Tensor) -> Tensor:
        logits = self.actor_head(features).float().squeeze(-1)
        return logits.log_softmax(dim=-1)

    def _value(self, features: Tensor) -> Tensor:
        assert self.critic_head is not None, "it was built without a critic"
        return self.critic_head(features.mean(dim=1)).float().squeeze(-1)


class AdaMAESampler(nn.Module):
    """One transformer block over the patch tokens and its own positions, linear, softmax."""

    def __init__(
        self, width: int, grid: TokenGrid, *, heads: int = 8, dropout: float = 0.1
    ) -> None:
        """Args: width: d of the patch tokens, divisible by `heads`."""
        super().__init__()
        # Zero at the start; decayed like a matrix, as the code does.
        self.position_embedding = nn.Parameter(torch.zeros(grid.tokens, width))
        self.block = SelfBlock(width, heads, bias=False, dropout=dropout, norm=nn.LayerNorm)
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

    The code's form of the paper's equation 4 (a mean of log p instead of a sum of p), of log p
    float32 [B, N], the predicted masked tokens int64 [B, q] and their errors float32 [B, q].
    """
    return -(log_probs.gather(1, targets) * error.detach()).mean()
