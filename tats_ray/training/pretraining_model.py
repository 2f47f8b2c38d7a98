"""Everything that one optimiser step of pre-training trains: the autoencoder and, by system, a
joint sampler and further decoders, with the sum of their losses."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tats_ray.config import Config
from tats_ray.config.masking import StepSettings
from tats_ray.masking.selection import (
    RolloutSystem,
    SamplerView,
    StepSystem,
    draw_without_replacement,
)
from tats_ray.models.initialization import seeded
from tats_ray.models.mae import MaskedAutoencoder, target_index
from tats_ray.models.samplers import Sampler, TrajectorySampler
from tats_ray.models.tokens import MOTION_VALUES, gather_tokens, motion_target
from tats_ray.models.transformer import Decoder


class StepOutput(NamedTuple):
    """Loss terms of a batch by name, weighted scalars in float32, whose sum is the loss; and the
    pixel errors of the predicted tokens, without their history."""

    losses: dict[str, Tensor]
    targets: Tensor  # int64 [B, q]
    error: Tensor | None  # float32 [B, q]; None where pixels are no target


class PretrainingModel(nn.Module):
    """The autoencoder `mae`, which rollout workers score with and which is evaluated afterwards;
    with it trains what the run has beside it: a joint sampler, TrackMAE's second decoder, the
    decoder of a feature target."""

    def __init__(self, config: Config, mae: MaskedAutoencoder, feature_width: int | None) -> None:
        super().__init__()
        self.config = config
        self.mae = mae
        model = config.model
        # Looked up here: the compiler does not follow how a system is found by its name.
        self._system = cast(StepSystem, config.masking_system)
        self._visible, self._targets, self._grid = config.visible, config.targets, config.grid
        self._view = SamplerView.of(config)
        self.sampler = None
        if config.learns_in_step:
            self.sampler = self._system.build_sampler(config.sampler_input_width)
        self.motion_decoder = self._decoder(MOTION_VALUES if model.motion_target.weight else None)
        self.feature_decoder = self._decoder(feature_width)
        if not model.target.weight:  # nothing trains the pixel decoder
            for name, parameter in mae.decoder.named_parameters():
                parameter.requires_grad_(name == "mask_token")

    def forward(
        self,
        patches: Tensor,
        choice: Tensor,
        target_noise: Tensor | None,
        motion: Tensor | None,
        features: Tensor | None,
    ) -> StepOutput:
        """Reconstructs what is hidden of a batch.

        Args:
            patches: float32 [B, N, V, 3] in [0, 1].
            choice: visible tokens int64 [B, k]; with a joint sampler the noise of its draw instead,
                float32 [B, N].
            target_noise: float [B, N] that chooses the predicted subset; None predicts all.
            motion: float [B, T', 2 rows, 2 columns, 2] in pixels, for the motion target.
            features: float32 [B, N, d], the feature target.
        """
        model = self.config.model
        log_probs = error = None
        if self.sampler is not None:
            log_probs = self._log_probs(patches)
            choice = draw_without_replacement(log_probs.detach(), choice, self._visible)
        visible = choice.sort(dim=1).values
        targets = target_index(visible, self._grid.tokens, self._targets, target_noise)
        seen = self.mae.encode(patches, visible)
        losses = {}
        if model.target.weight:
            error = self.mae.reconstruct(patches, seen, visible, targets).error
            losses["pixels"] = model.target.weight * error.mean()
            if log_probs is not None:
                loss = self._system.loss(log_probs, targets, error)
                losses["sampling"] = cast(StepSettings, self.config.masking).coefficient * loss
        if self.motion_decoder is not None:
            assert motion is not None, "clips carry motion where it is a target"
            wanted = motion_target(motion, model.motion_target.normalize)
            loss = _decoder_loss(self.motion_decoder, seen, visible, targets, wanted)
            losses["motion"] = model.motion_target.weight * loss
        if self.feature_decoder is not None:
            assert features is not None, "features are computed where they are a target"
            loss = _decoder_loss(self.feature_decoder, seen, visible, targets, features)
            losses["features"] = loss  # the other targets are weighed against it
        return StepOutput(losses, targets, None if error is None else error.detach())

    def _log_probs(self, patches: Tensor) -> Tensor:
        with torch.set_grad_enabled(not cast(StepSettings, self.config.masking).detach):
            view = self._view(patches, self.mae.patch_embedding)
        return cast(Sampler, self.sampler).log_probs(view)

    def _decoder(self, values: int | None) -> Decoder | None:
        """A decoder of its own that shares the mask token, as TrackMAE's."""
        if values is None:
            return None
        shared = self.mae.decoder.mask_token
        return Decoder(self.config.model, self.config.grid, values, mask_token=shared)


def build_pretraining_model(
    config: Config, mae: MaskedAutoencoder, feature_width: int | None
) -> PretrainingModel:
    """A freshly initialised model, as `seeded`."""
    seed = config.run.seed + 2  # neither the autoencoder's nor the policy's numbers
    return seeded(seed, lambda: PretrainingModel(config, mae, feature_width))


def build_policy(config: Config) -> TrajectorySampler:
    """A freshly initialised sampler of a system that rollouts train."""
    system = cast(RolloutSystem, config.masking_system)
    critic = config.rl.baseline == "critic"
    return seeded(
        config.run.seed + 1,  # not the autoencoder's numbers
        lambda: system.build_sampler(config.sampler_input_width, critic),
    )


def _decoder_loss(
    decoder: Decoder, seen: Tensor, visible: Tensor, targets: Tensor, wanted: Tensor
) -> Tensor:
    prediction = decoder(seen, visible, targets).float()
    return (prediction - gather_tokens(wanted, targets)).square().mean()
