"""Trained weights from wherever they come: a run of ours, an export of one, a folder of the
transformers library, or an official file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.config.foreign_weights import WEIGHTS, is_foreign
from tats_ray.config.huggingface import CLASSIFIER, is_huggingface, read_huggingface
from tats_ray.config.load import read_yaml
from tats_ray.errors import CheckpointError
from tats_ray.models import foreign_names
from tats_ray.models.foreign_names import from_huggingface
from tats_ray.models.official import read_official
from tats_ray.models.state import State
from tats_ray.training.checkpoint import (
    newest_checkpoint,
    read_autoencoder,
    read_document,
    read_optional_tensors,
    read_progress,
    read_safetensors,
    read_tensors,
)

CLASSES = "classes.json"
_CLASSIFIER = "classifier."
_AUTOENCODER = "mae."
# Prefix in the classifier -> of the same part of the encoder.
_ENCODER = {"patch_embedding.": "patch_embedding.", "blocks.": "encoder.blocks."}


@dataclass(frozen=True)
class Pretrained:
    """What was read, as float32.

    Attributes:
        origin: folder or file, for messages.
        weights: by their names in `PretrainingModel`; those of a fine-tuned classifier begin with
            `classifier.`.
        model: settings below `model` that the origin tells; empty where it tells none.
        classes: of a classifier, where the origin names them.
        step: optimiser steps; 0 where the origin tells none.
    """

    origin: Path
    weights: State
    model: dict[str, Any]
    classes: list[str]
    step: int

    @property
    def autoencoder(self) -> State:
        """Weights by their names in `MaskedAutoencoder`."""
        return below(_AUTOENCODER, self.weights)

    @property
    def classifier(self) -> State:
        """Weights by their names in `VideoClassifier`; empty where it is no classifier."""
        return below(_CLASSIFIER, self.weights)

    @property
    def encoder(self) -> State:
        """Patch embedding and encoder by their names in `MaskedAutoencoder`; that of a classifier
        has no last norm."""
        if not self.classifier:
            parts = ("patch_embedding.", "encoder.")
            return {k: v for k, v in self.autoencoder.items() if k.startswith(parts)}
        return {
            ours + name: value
            for theirs, ours in _ENCODER.items()
            for name, value in below(theirs, self.classifier).items()
        }


def below(prefix: str, weights: State) -> State:
    """The weights whose names begin with the prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def read_pretrained(source: Path) -> Pretrained:
    """Reads weights; nothing in them is executed.

    Raises:
        CheckpointError: there are none, or they are damaged; names the file and the fault.
    """
    if source.is_file():
        weights = {name: value.numpy() for name, value in read_official(source).items()}
        return Pretrained(source, weights, {}, [], 0)
    if not source.exists():
        raise CheckpointError(f"{source}: cannot be read (there is no such file or run)")
    if is_huggingface(source):
        return _read_huggingface(source)
    return _read_export(source) if is_foreign(source) else _read_run(source)


def read_classes(folder: Path) -> list[str]:
    """Class names by number, of a checkpoint or an export.

    Raises:
        CheckpointError: names the file and the fault.
    """
    file = folder / CLASSES
    classes = read_document(file)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{file}: is not a list of class names")
    return classes


def _read_huggingface(folder: Path) -> Pretrained:
    described = read_huggingface(folder)
    state = _read_weights(folder)
    if described.architecture == CLASSIFIER:
        named = _prefixed(_CLASSIFIER, from_huggingface(state, foreign_names.CLASSIFIER))
    else:
        named = _prefixed(_AUTOENCODER, from_huggingface(state, foreign_names.AUTOENCODER))
    return Pretrained(folder, named, described.model, described.classes, 0)


def _read_export(folder: Path) -> Pretrained:
    weights = _read_weights(folder)
    if not any(name.startswith((_AUTOENCODER, _CLASSIFIER)) for name in weights):
        raise CheckpointError(
            f"{folder}: its weights have other names, as those of --format timm; export them as "
            "huggingface or safetensors"
        )
    classes = read_classes(folder) if (folder / CLASSES).is_file() else []
    return Pretrained(folder, weights, _model_of(folder), classes, 0)


def _read_run(source: Path) -> Pretrained:
    checkpoint = newest_checkpoint(source)
    run = checkpoint.parent.parent
    if (checkpoint / "classifier.safetensors").is_file():
        weights = _prefixed(_CLASSIFIER, read_tensors(checkpoint, "classifier"))
        classes = read_classes(checkpoint)
    else:
        weights = _prefixed(_AUTOENCODER, read_autoencoder(checkpoint))
        weights |= read_optional_tensors(checkpoint, "auxiliary")
        classes = []
    step = read_progress(checkpoint).step
    return Pretrained(checkpoint, weights, _model_of(run), classes, step)


def _read_weights(folder: Path) -> State:
    file = folder / WEIGHTS
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: contains no {WEIGHTS}; save the model there again with save_pretrained of "
            "transformers, in one file"
        )
    state = read_safetensors(file.resolve())  # the hub's cache consists of links
    return {name: _float32(value) for name, value in state.items()}


def _float32(value: np.ndarray) -> np.ndarray:
    """Half and double precision; what is no fraction is none of a model's and stays as it is."""
    return value.astype(np.float32) if np.issubdtype(value.dtype, np.floating) else value


def _model_of(run: Path) -> dict[str, Any]:
    file = run / "config.yaml"
    if not file.is_file():
        return {}
    model = read_yaml(file).get("model", {})
    if not isinstance(model, dict):
        raise CheckpointError(f"{file}: 'model' is not a section of settings")
    return model


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}
