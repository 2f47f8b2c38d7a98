"""Reads official files of VideoMAE, AdaMAE and TrackMAE under our names.

Our parameters mean the same; names differ, and the patch embedding is a linear map instead of a
3-D convolution.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tats_ray.errors import CheckpointError
from tats_ray.models.tokens import sinusoid_1d

Weights = dict[str, Tensor]

_CONTAINERS = ("model", "module")  # where the codes keep the weights inside a checkpoint
_CONVOLUTION = "patch_embed.proj.weight"
_POSITIONS = "encoder.pos_embed_probs"
_TABLES = ("encoder.pos_embed", "decoder_pos_embed", "pos_embed")  # TrackMAE stores them
_JOINT_BIAS = ".attn.qkv.bias"  # TrackMAE's; the keys' part cancels in the softmax
_TRACKER = "motion_decoder."
# Official name or prefix -> ours, in `PretrainingModel`.
_PRETRAINED = {
    "encoder.patch_embed.proj.": "mae.patch_embedding.projection.",
    "encoder.blocks.": "mae.encoder.blocks.",
    "encoder.norm.": "mae.encoder.norm.",
    "encoder_to_decoder.": "mae.decoder.embedding.",
    "mask_token": "mae.decoder.mask_token",
    "decoder.blocks.": "mae.decoder.blocks.",
    "decoder.norm.": "mae.decoder.norm.",
    "decoder.head.": "mae.decoder.head.",
    _POSITIONS: "sampler.position_embedding",
    "encoder.get_token_probs.0.": "sampler.block.",
    "encoder.get_token_probs.1.": "sampler.head.",
    "encoder_to_tracker.": f"{_TRACKER}embedding.",
    "tracker_decoder.": _TRACKER,
}
# Official name or prefix -> ours, in `VideoClassifier` behind `classifier.`.
_FINE_TUNED = {
    "patch_embed.proj.": "classifier.patch_embedding.projection.",
    "blocks.": "classifier.blocks.",
    "fc_norm.": "classifier.norm.",
    "head.": "classifier.head.",
}


def read_official(path: Path) -> Weights:
    """Weights of an official checkpoint under our names, AdaMAE's sampler and TrackMAE's second
    decoder included; those of a fine-tuned one begin with `classifier.`.

    Args:
        path: safetensors, or a torch file, of which nothing but tensors and plain values is read.

    Raises:
        CheckpointError: names the file and what is wrong; no code of the file is executed.
    """
    content = _read(path)
    pretrained = any(name.startswith("encoder.") for name in content)
    names = _PRETRAINED if pretrained else _FINE_TUNED
    weights: Weights = {}
    for name, value in content.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(
                f"{path}: '{name}' holds values that are not finite; download again"
            )
        if name in _TABLES:
            _check_positions(path, name, value)
        else:
            weights |= _ours(path, _our_name(path, name, names), name, value.float())
    token = weights.get("mae.decoder.mask_token")
    if token is not None and any(name.startswith(_TRACKER) for name in weights):
        weights[f"{_TRACKER}mask_token"] = token  # both decoders have the same
    return weights


def _our_name(path: Path, name: str, names: dict[str, str]) -> str:
    prefix = next((known for known in names if name.startswith(known)), None)
    if prefix is None:
        raise CheckpointError(
            f"{path}: weight '{name}' does not belong to a pre-training model or classifier of "
            "VideoMAE, AdaMAE or TrackMAE"
        )
    return names[prefix] + name.removeprefix(prefix)


def _ours(path: Path, ours: str, name: str, value: Tensor) -> Weights:
    """A weight in our form: mostly one, of the official name."""
    if name.endswith(_JOINT_BIAS) and value.numel() % 3 == 0:
        query, _, values = value.flatten().chunk(3)
        stem = ours.removesuffix("qkv.bias")
        return {f"{stem}q_bias": query, f"{stem}v_bias": values}
    if name.endswith(_CONVOLUTION):  # [d, 3, u, p, p]; our tokens put the colour last
        if value.ndim != 5:
            raise CheckpointError(
                f"{path}: '{name}' is {tuple(value.shape)}, not the kernel of a 3-D convolution; "
                "give a checkpoint of a video model"
            )
        value = value.permute(0, 2, 3, 4, 1).flatten(1)
    elif name == "mask_token":
        value = value.flatten()
    elif name == _POSITIONS:
        value = value.squeeze(0)
    return {ours: value}


def _check_positions(path: Path, name: str, value: Tensor) -> None:
    table = value.float().squeeze(0)
    if table.ndim != 2 or not torch.allclose(
        table, sinusoid_1d(torch.arange(len(table)), table.shape[1]), atol=1e-4
    ):
        raise CheckpointError(
            f"{path}: '{name}' holds learned positions; only models with sinusoids can be read"
        )


def _read(path: Path) -> Weights:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # The codes store their command line beside the weights; a Namespace does nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch answers damage with errors of a dozen types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason})") from None
    for key in _CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(map(_is_weight, content.items())):
        raise CheckpointError(
            f"{path}: holds no weights under 'model' or 'module'; give the file as it was published"
        )
    return content


def _is_weight(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
