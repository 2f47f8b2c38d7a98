"""Feature targets: a frozen image encoder from timm (TrackMAE's CLIP target, or DINO by name)."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.model import FeatureTargetSettings
from tats_ray.errors import FeatureEncoderError
from tats_ray.models.tokens import IMAGE_MEAN, IMAGE_STD

_FIELD = "model.feature_target"


class FeatureEncoder:
    """Patch tokens of the first frame of every time slice, standardised over the clip.

    Not a module of the trained model: its weights are neither trained, published nor stored.
    """

    def __init__(
        self, settings: FeatureTargetSettings, grid: TokenGrid, size: int, device: torch.device
    ) -> None:
        """Args: size: side of the model input, pixels.

        Raises:
            FeatureEncoderError: there is no such encoder, or its weights cannot be had.
        """
        self.grid = grid
        self.model = _load(settings, size).eval().requires_grad_(False).to(device)
        self.width: int = self.model.num_features
        # ImageNet's statistics whatever the encoder was trained with, as TrackMAE's code.
        self.mean = torch.tensor(IMAGE_MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(IMAGE_STD, device=device).view(3, 1, 1)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """float32 [B, 3, T, S, S] in [0, 1] -> float32 [B, N, width]."""
        step = pixels.shape[2] // self.grid.time
        frames = rearrange(pixels[:, :, ::step], "b c t h w -> (b t) c h w")
        tokens = self.model.forward_features((frames - self.mean) / self.std)
        tokens = tokens[:, self.model.num_prefix_tokens :].float()
        side = round(tokens.shape[1] ** 0.5)
        maps = rearrange(tokens, "n (r c) d -> n d r c", r=side)
        if (side, side) != (self.grid.rows, self.grid.columns):
            maps = F.interpolate(maps, (self.grid.rows, self.grid.columns), mode="bilinear")
        features = rearrange(maps, "(b t) d r c -> b (t r c) d", t=self.grid.time)
        std, mean = torch.std_mean(features, dim=1, keepdim=True)
        return (features - mean) / (std + 1e-6)


def _load(settings: FeatureTargetSettings, size: int) -> VisionTransformer:
    assert settings.encoder is not None, "an encoder is configured"
    if settings.encoder.split(".")[0] not in timm.list_models(module="vision_transformer"):
        raise FeatureEncoderError(
            f"{_FIELD}.encoder: timm has no vision transformer '{settings.encoder}'"
        )
    file = settings.weights
    try:
        # The hub answers failures with errors of many types; all mean the same to the user.
        model = timm.create_model(
            settings.encoder, pretrained=file is None, num_classes=0, img_size=size
        )
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FeatureEncoderError(
            f"{_FIELD}.encoder: weights of '{settings.encoder}' cannot be loaded ({reason}); give "
            f"a safetensors file as {_FIELD}.weights or let this machine reach the hub once"
        ) from None
    assert isinstance(model, VisionTransformer), "listed under this class's module"
    if file is not None:
        _load_weights(model, Path(file))
    return model


def _load_weights(model: nn.Module, file: Path) -> None:
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise FeatureEncoderError(
            f"{_FIELD}.weights: {file} is not a readable safetensors file ({error})"
        ) from None
    if wrong := _misfit(model, weights):
        raise FeatureEncoderError(f"{_FIELD}.weights: {file} does not fit: {wrong}")
    model.load_state_dict(weights, strict=False)


def _misfit(model: nn.Module, weights: dict[str, Tensor]) -> str | None:
    """The first weight of the encoder that the file lacks or has in another shape."""
    for name, value in model.state_dict().items():
        if name not in weights:
            return f"'{name}' is missing"
        if weights[name].shape != value.shape:
            return f"'{name}' is {tuple(weights[name].shape)}, needed {tuple(value.shape)}"
    return None
