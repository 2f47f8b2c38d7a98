"""Training state of a classifier: what is stored of it, and what it starts from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import read_yaml
from tats_ray.errors import CheckpointError
from tats_ray.models.classifier import VideoClassifier
from tats_ray.models.initialization import seeded
from tats_ray.models.official import read_official
from tats_ray.models.state import State, load_model_state, model_state
from tats_ray.training.checkpoint import newest_checkpoint, read_progress, read_tensors

_FIELD = "train.initial_weights"
# Encoder's prefix in the autoencoder -> in the classifier.
_PREFIXES = {"patch_embedding.": "patch_embedding.", "encoder.blocks.": "blocks."}
# Settings that change what the encoder computes, or its shape.
_ARCHITECTURE = ("patch", "tubelet", "width", "depth", "heads", "mlp_ratio", "positions")


@dataclass(frozen=True)
class ClassifierState:
    """Classifier and optimiser after `step` steps."""

    step: int
    classes: list[str]
    weights: State
    optimizer: State

    @property
    def policy_version(self) -> int:
        return 0

    def files(self) -> dict[str, State]:
        return {"classifier": self.weights, "classifier_optimizer": self.optimizer}

    def documents(self) -> dict[str, Any]:
        return {"classes": self.classes}


def build_classifier(config: FinetuneConfig, classes: int) -> VideoClassifier:
    """A freshly initialised model, as `seeded`."""
    head = config.classifier
    return seeded(
        config.run.seed,
        lambda: VideoClassifier(
            config.model, config.grid, classes, drop_path=head.drop_path, dropout=head.dropout
        ),
    )


def read_classifier(path: Path) -> ClassifierState:
    """State in a checkpoint folder.

    Raises:
        CheckpointError: names the file and the fault.
    """
    return ClassifierState(
        step=read_progress(path).step,
        classes=_read_classes(path / "classes.json"),
        weights=read_tensors(path, "classifier"),
        optimizer=read_tensors(path, "classifier_optimizer"),
    )


def load_pretrained(model: VideoClassifier, config: FinetuneConfig) -> None:
    """Sets the encoder to that of `train.initial_weights`; the head stays as it is.

    Raises:
        CheckpointError: there is no checkpoint, or it is of another encoder; names the setting or
            the weight.
    """
    source = Path(config.train.initial_weights or "")
    try:
        encoder = _encoder_weights(_read_pretrained(source, config))
    except CheckpointError as error:
        raise CheckpointError(f"{_FIELD}: {error}") from None
    own = {name: value for name, value in model_state(model).items() if _of_head(name)}
    try:
        load_model_state(model, own | encoder)
    except CheckpointError as error:
        raise CheckpointError(f"{_FIELD}: {source}: {error}") from None


def _read_pretrained(source: Path, config: FinetuneConfig) -> State:
    """The autoencoder's weights in an official file, or in a run or checkpoint of ours."""
    if source.is_file():
        official = read_official(source)
        return {name.removeprefix("mae."): value.numpy() for name, value in official.items()}
    step = newest_checkpoint(source)
    _check_architecture(step.parent.parent / "config.yaml", config)
    return read_tensors(step, "mae")


def _check_architecture(config_file: Path, config: FinetuneConfig) -> None:
    """Compares what weights do not tell, such as the number of heads."""
    if not config_file.is_file():
        return
    pretrained = read_yaml(config_file).get("model", {})
    if not isinstance(pretrained, dict):
        raise CheckpointError(f"{config_file}: 'model' is no section of settings")
    for name in _ARCHITECTURE:
        asked = getattr(config.model, name)
        if pretrained.get(name, asked) != asked:
            raise CheckpointError(
                f"{config.train.initial_weights} was pre-trained with model.{name}="
                f"{pretrained[name]}, not {asked}; set model.{name}={pretrained[name]}"
            )


def _encoder_weights(weights: State) -> dict[str, np.ndarray]:
    """Those of the autoencoder's weights that the classifier has, under its names."""
    return {
        ours + name.removeprefix(theirs): value
        for theirs, ours in _PREFIXES.items()
        for name, value in weights.items()
        if name.startswith(theirs)
    }


def _of_head(name: str) -> bool:
    return not name.startswith(tuple(_PREFIXES.values()))


def _read_classes(file: Path) -> list[str]:
    try:
        classes = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{file}: is not a list of class names")
    return classes
