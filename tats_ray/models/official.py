"""Reads the official pre-training checkpoints of VideoMAE and AdaMAE under our names.

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

Weights = dict[str, Tensor]

_CONTAINERS = ("model", "module")  # where the codes keep the weights inside a checkpoint
_CONVOLUTION = "encoder.patch_embed.proj.weight"
_POSITIONS = "encoder.pos_embed_probs"
# Official name or prefix -> ours, in `PretrainingModel`.
_NAMES = {
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
}


def read_official(path: Path) -> Weights:
    """Weights of an official checkpoint under our names, AdaMAE's sampler included.

    Args:
        path: safetensors, or a torch file, of which nothing but tensors and plain values is read.

    Raises:
        CheckpointError: names the file and what is wrong; no code of the file is executed.
    """
    weights = {}
    for name, value in _read(path).items():
        weights[_our_name(path, name)] = _our_form(path, name, value)
    return weights


def _our_name(path: Path, name: str) -> str:
    prefix = next((known for known in _NAMES if name.startswith(known)), None)
    if prefix is None:
        raise CheckpointError(
            f"{path}: weight '{name}' does not belong to a pre-training model of VideoMAE or AdaMAE"
        )
    return _NAMES[prefix] + name.removeprefix(prefix)


def _our_form(path: Path, name: str, value: Tensor) -> Tensor:
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{path}: '{name}' holds values that are not finite; download again")
    if name == _CONVOLUTION:  # [d, 3, u, p, p]; our tokens put the colour last
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
    return value.float()


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
