"""The masked autoencoder as an environment: a clip is shown, a token set is chosen, the
reconstruction error answers. Pure PyTorch; `gym_environment` wraps it for gymnasium and RLlib."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.config import Config
from tats_ray.data.clips import Clips
from tats_ray.models.inputs import choose_targets, clip_pixels
from tats_ray.models.mae import MaskedAutoencoder, build_mae
from tats_ray.models.precision import autocast
from tats_ray.models.state import State, load_model_state
from tats_ray.models.tokens import copy_error, reconstruction_target


class ReconstructionEnvironment:
    """Batched one-step environment (a contextual bandit).

    `observe` shows clips, `score` takes the visible tokens and returns each predicted token's
    error. The autoencoder's weights are set from outside and carry their version.
    """

    def __init__(
        self, config: Config, device: torch.device, mae: MaskedAutoencoder | None = None
    ) -> None:
        """Args: mae: the autoencoder to ask; by default the environment has its own."""
        self.config = config
        self.device = device
        if mae is None:
            mae = build_mae(config.model, config.grid, config.run.seed).to(device)
        self.mae = mae.eval()
        self.version = 0
        self._patches: Tensor | None = None
        self._first = 0

    def load(self, version: int, state: State) -> None:
        """Takes over the autoencoder's weights of a version."""
        load_model_state(self.mae, state)
        self.version = version

    @torch.no_grad()
    def observe(self, clips: Clips) -> Tensor:
        """Shows clips; returns their patch tokens, the policy's state: [B, N, d]."""
        self._patches = self.mae.patches(clip_pixels(self.config, clips, self.device))
        self._first = clips.first
        with autocast(self.config.train.precision, self.device):
            return self.mae.patch_embedding(self._patches)

    @torch.no_grad()
    def score(self, visible: Tensor, draw: int = 0) -> tuple[Tensor, Tensor]:
        """Reconstructs the observed clips from the visible tokens.

        Args:
            visible: int64 [B, k], distinct per row.
            draw: which draw of the clip this is (chooses the predicted subset).

        Returns:
            targets int64 [B, q], the predicted masked tokens, and error float32 [B, q]; with
            `rl.reward=beyond_copy` at most the error of copying the token over time.
        """
        assert self._patches is not None, "observe comes first"
        targets = choose_targets(self.config, visible, self._first, draw)
        with autocast(self.config.train.precision, self.device):
            error = self.mae(self._patches, visible.sort(dim=1).values, targets).error
        if self.config.rl.reward == "beyond_copy":
            error = torch.minimum(error, self._copy_error(self._patches).gather(1, targets))
        return targets, error

    def _copy_error(self, patches: Tensor) -> Tensor:
        """Error of copying each token from the slice before or after, float32 [B, N]."""
        tokens = torch.arange(self.config.grid.tokens, device=patches.device)
        pixels = self.mae.predicted_pixels(patches, tokens.expand(len(patches), -1))
        return copy_error(reconstruction_target(pixels, self.config.model.target), self.config.grid)
