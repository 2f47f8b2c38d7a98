"""Training state of a classifier, and the model that it belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.errors import CheckpointError
from tats_ray.models.classifier import VideoClassifier
from tats_ray.models.initialization import seeded
from tats_ray.models.state import State
from tats_ray.training.checkpoint import read_progress, read_tensors


@dataclass(frozen=True)
class ClassifierState:
    """Classifier and optimiser after `step` steps."""

    step: int
    classes: list[str]
    weights: State
    optimizer: State

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


def _read_classes(file: Path) -> list[str]:
    try:
        classes = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{file}: is not a list of class names")
    return classes
