"""The masked autoencoder as an environment: a clip is shown, a token set is chosen, the
reconstruction error answers. Pure PyTorch; `gym_environment` wraps it for gymnasium."""

from __future__ import annotations

import torch
from torch import Tensor

from tats_ray.data.clip_inputs import ClipInputs
from tats_ray.data.clips import Clips
from tats_ray.masking.selection import SamplerView
from tats_ray.models.mae import MaskedAutoencoder, target_index
from tats_ray.models.numerics import autocast
from tats_ray.models.state import State, load_model_state


class ReconstructionEnvironment:
    """Batched one-step environment (a contextual bandit).

    `observe` shows clips, `score` takes the visible tokens and returns each predicted token's
    error. The autoencoder's weights are set from outside and carry their version.
    """

    def __init__(
        self,
        mae: MaskedAutoencoder,
        inputs: ClipInputs,
        *,
        view: SamplerView,
        precision: str,
        copy_clipped: bool,
    ) -> None:
        """
        Args:
            mae: the autoencoder to ask, on the device to compute on.
            view: what the policy sees.
            copy_clipped: whether errors are bounded by that of copying the token over time.
        """
        self.mae = mae
        self.inputs = inputs
        self.precision = precision
        self.device = next(mae.parameters()).device
        self.version = 0
        self._view = view
        self._copy_clipped = copy_clipped
        self._patches: Tensor | None = None
        self._first = 0

    def load(self, version: int, state: State) -> None:
        """Takes over the autoencoder's weights of a version."""
        load_model_state(self.mae, state)
        self.version = version

    @torch.no_grad()
    def observe(self, clips: Clips) -> Tensor:
        """Shows clips; returns what the policy sees of them, [B, N, d]."""
        self._patches = self.mae.patches(self.inputs.pixels(clips, self.device))
        self._first = clips.first
        with autocast(self.precision, self.device):
            return self._view(self._patches, self.mae.patch_embedding)

    @torch.no_grad()
    def score(self, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructs the observed clips from the visible tokens.

        Where a part of the masked tokens is predicted, it is the same for all token sets of a clip
        as far as it is masked: their errors are compared.

        Args:
            visible: int64 [B, k], distinct per row.

        Returns:
            targets int64 [B, q], the predicted masked tokens, and error float32 [B, q].
        """
        assert self._patches is not None, "observe comes first"
        inputs = self.inputs
        noise = inputs.target_noise(self._first, len(visible), visible.device)
        targets = target_index(visible, inputs.grid.tokens, inputs.targets, noise)
        self.mae.eval()
        with autocast(self.precision, self.device):
            error = self.mae(self._patches, visible.sort(dim=1).values, targets).error
        if self._copy_clipped:
            error = torch.minimum(error, self.mae.copy_error(self._patches, targets))
        return targets, error
