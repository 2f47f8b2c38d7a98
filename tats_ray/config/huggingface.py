"""config.json of VideoMAE in the transformers library, in both directions.

That model has one sinusoid over the sequence, a self-attention decoder and ImageNet's
standardisation; what is otherwise has no place there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.model import ModelSettings
from tats_ray.errors import CheckpointError, ExportError

CONFIG = "config.json"
PRETRAINING = "VideoMAEForPreTraining"
ENCODER = "VideoMAEModel"
CLASSIFIER = "VideoMAEForVideoClassification"
_DOCUMENT_BYTES = 1 << 20  # Kinetics-700's classes have 50 kB
_EPSILON = 1e-6  # of our norms, and of VideoMAE's code


class _Stored(BaseModel):
    """What is read of config.json, with the library's defaults; the rest changes no number."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model_type: str
    architectures: list[str] = Field(min_length=1)
    image_size: int = Field(224, ge=8)
    patch_size: int = Field(16, ge=1)
    num_channels: int = 3
    num_frames: int = Field(16, ge=1)
    tubelet_size: int = Field(2, ge=1)
    hidden_size: int = Field(768, ge=8)
    num_hidden_layers: int = Field(12, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    use_mean_pooling: bool = True
    decoder_num_attention_heads: int = Field(6, ge=1)
    decoder_hidden_size: int = Field(384, ge=8)
    decoder_num_hidden_layers: int = Field(4, ge=1)
    norm_pix_loss: bool = True
    id2label: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class HuggingFaceModel:
    """A VideoMAE as its config.json describes it.

    Attributes:
        model: settings below `model`, nested.
        classes: names by number; empty where it is no classifier.
    """

    architecture: str
    model: dict[str, Any]
    frames: int
    size: int
    classes: list[str]


def is_huggingface(folder: Path) -> bool:
    """Whether a folder is laid out as `save_pretrained` does."""
    return (folder / CONFIG).is_file()


def read_huggingface(folder: Path) -> HuggingFaceModel:
    """Reads `config.json` of a folder.

    Raises:
        CheckpointError: it is damaged, or of a model that we do not have; names file and field.
    """
    file = folder / CONFIG
    try:
        with file.open("rb") as opened:
            content = opened.read(_DOCUMENT_BYTES + 1)
        if len(content) > _DOCUMENT_BYTES:
            raise CheckpointError(f"{file}: is larger than {_DOCUMENT_BYTES:,} bytes")
        stored = _Stored.model_validate(json.loads(content))
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"])) or "content"
        raise CheckpointError(f"{file}: {field}: {fault['msg'].lower()}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: is no JSON document ({error})") from None
    _check(file, stored)
    classifies = stored.architectures[0] == CLASSIFIER
    numbers = [str(number) for number in range(len(stored.id2label))]
    if classifies and stored.id2label.keys() != set(numbers):
        raise CheckpointError(f"{file}: id2label: does not name the classes 0, 1, ...")
    classes = [stored.id2label[number] for number in numbers] if classifies else []
    return HuggingFaceModel(
        stored.architectures[0], _model(stored), stored.num_frames, stored.image_size, classes
    )


def _check(file: Path, stored: _Stored) -> None:
    known = {
        "model_type": (stored.model_type, "videomae"),
        "num_channels": (stored.num_channels, 3),
        "hidden_act": (stored.hidden_act, "gelu"),
        "intermediate_size": (stored.intermediate_size, 4 * stored.hidden_size),
    }
    if stored.architectures[0] == CLASSIFIER:
        known["use_mean_pooling"] = (stored.use_mean_pooling, True)
    for field, (value, wanted) in known.items():
        if value != wanted:
            raise CheckpointError(f"{file}: {field} is {value}; only {wanted} can be read")
    architectures = (PRETRAINING, ENCODER, CLASSIFIER)
    if stored.architectures[0] not in architectures:
        raise CheckpointError(
            f"{file}: architectures names {stored.architectures[0]}; only "
            f"{', '.join(architectures)} can be read"
        )


def _model(stored: _Stored) -> dict[str, Any]:
    return {
        "patch": stored.patch_size,
        "tubelet": stored.tubelet_size,
        "width": stored.hidden_size,
        "depth": stored.num_hidden_layers,
        "heads": stored.num_attention_heads,
        "positions": "sinusoid_1d",
        "decoder": {
            "attention": "self",
            "width": stored.decoder_hidden_size,
            "depth": stored.decoder_num_hidden_layers,
            "heads": stored.decoder_num_attention_heads,
        },
        "target": {"normalize": "channel" if stored.norm_pix_loss else "none"},
    }


def huggingface_config(
    model: ModelSettings, grid: TokenGrid, architecture: str, classes: list[str]
) -> dict[str, Any]:
    """The content of config.json, which transformers 4 and 5 read alike.

    Raises:
        ExportError: the model cannot be expressed; names the setting and the remedy.
    """
    check_exportable(model, architecture)
    names = {str(number): name for number, name in enumerate(classes)}
    labels = {"id2label": names, "label2id": {n: int(i) for i, n in names.items()}}
    return {
        "architectures": [architecture],
        "model_type": "videomae",
        "image_size": grid.rows * model.patch,
        "patch_size": model.patch,
        "num_channels": 3,
        "num_frames": grid.time * model.tubelet,
        "tubelet_size": model.tubelet,
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "intermediate_size": 4 * model.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": _EPSILON,
        "qkv_bias": True,
        "use_mean_pooling": architecture == CLASSIFIER,  # else the encoder has a last norm
        "decoder_num_attention_heads": model.decoder.heads,
        "decoder_hidden_size": model.decoder.width,
        "decoder_num_hidden_layers": model.decoder.depth,
        "decoder_intermediate_size": 4 * model.decoder.width,
        "norm_pix_loss": model.target.normalize == "channel",
        **(labels if classes else {}),
    }


def check_exportable(model: ModelSettings, architecture: str) -> None:
    """Raises: ExportError: transformers has no such VideoMAE; names the setting and the remedy."""
    if model.positions != "sinusoid_1d":
        raise ExportError(
            f"model.positions={model.positions} cannot be exported as huggingface, whose VideoMAE "
            "has sinusoid_1d: use --format timm, which stores positions, or --format safetensors"
        )
    if architecture != PRETRAINING:
        return
    target = model.target
    odd = {
        "model.decoder.attention": (model.decoder.attention, "self"),
        "model.target.frames": (target.frames, None),
        "model.target.normalize": (target.normalize, target.normalize.replace("joint", "channel")),
        "model.target.weight": (target.weight, target.weight or "above 0"),
    }
    for field, (value, wanted) in odd.items():
        if value != wanted:
            raise ExportError(
                f"{field}={value} cannot be exported as huggingface, whose decoder knows other "
                "values: add --encoder for the encoder alone, or use --format safetensors"
            )
