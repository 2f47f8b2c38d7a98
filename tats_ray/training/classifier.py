"""The classifier being fine-tuned: model, optimiser, step and state, on one device of any mode."""

from __future__ import annotations

from pathlib import Path

import torch
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.data.clips import Clips
from tats_ray.data.labelled_clips import ClipLabels
from tats_ray.data.randomness import Stream, torch_seed
from tats_ray.models.classifier import VideoClassifier, build_layered_adamw
from tats_ray.models.initialization import seeded
from tats_ray.models.numerics import ALONE, Ranks, autocast, spread
from tats_ray.models.optimizer import GuardedOptimizer, learning_rate
from tats_ray.models.state import State, load_model_state, model_state
from tats_ray.training.checkpoint import read_progress, read_tensors
from tats_ray.training.finetune_inputs import mix, training_pixels
from tats_ray.training.initial_weights import load_initial_encoder
from tats_ray.training.pretrained import read_classes
from tats_ray.training.reports import StepReport, TrainerState
from tats_ray.training.trainer import (
    Masks,
    StepMetrics,
    Wrap,
    in_parts,
    prepared,
    unwrapped,
)


class ClassifierTrainer:
    """One rank's share of fine-tuning; `step` counts finished steps."""

    def __init__(
        self,
        config: FinetuneConfig,
        classes: list[str],
        labels: ClipLabels,
        device: torch.device,
        wrap: Wrap = unwrapped,
    ) -> None:
        """Args: wrap: makes the model data-parallel.

        Raises:
            CheckpointError: `train.initial_weights` does not fit.
        """
        self.config = config
        self.classes = classes
        self.device = device
        self.step = 0
        self._labels = labels
        self.classifier = build_classifier(config, len(classes))
        if config.train.initial_weights is not None:
            load_initial_encoder(self.classifier, config.model, config.train.initial_weights)
        train = config.train
        self.model = prepared(self.classifier, train, device, wrap)
        betas = (train.betas[0], train.betas[1])
        adamw = build_layered_adamw(
            self.classifier, train.lr, train.weight_decay, betas, train.layer_decay
        )
        self.optimizer = GuardedOptimizer(adamw, train.gradient_clip, train.skip_nonfinite)
        self.optimizer.watch(self.model)
        self._loss = SoftTargetCrossEntropy()
        self._metrics = StepMetrics(train, self.optimizer, "classifier")

    def train_step(self, clips: Clips, masks: Masks | None = None) -> None:
        """One optimiser step on this rank's clips, of which the classifier sees every token."""
        assert masks is None, "a classifier sees every token"
        train = self.config.train
        self.optimizer.zero_grad()
        parts = in_parts(self.model, clips, train.accumulate)
        losses = [self._backward(part) for _, part in parts]
        norm = self.optimizer.step(learning_rate(train.schedule, self.step))
        metrics = {"loss": torch.stack(losses).mean(), "gradient_norm": norm}
        self._metrics.add(metrics, clips.stream_indices)
        self.step += 1

    def weights(self) -> State:
        return {}  # nobody reads them while it trains; the version says how far it is

    def reports(self, ranks: Ranks = ALONE) -> list[StepReport]:
        return self._metrics.read(self.step, ranks)

    def state(self) -> TrainerState:
        moments = self.optimizer.state(self.classifier)
        files = {"classifier": model_state(self.classifier), "classifier_optimizer": moments}
        return TrainerState(self.step, files, {"classes": self.classes})

    def load(self, state: TrainerState) -> None:
        load_model_state(self.classifier, state.files["classifier"])
        self.optimizer.load(self.classifier, state.files["classifier_optimizer"])
        self.step = state.step

    def _backward(self, clips: Clips) -> Tensor:
        """Forward and backward pass of a part of the step; returns its loss, on the device."""
        config = self.config
        labels = torch.from_numpy(self._labels.at(clips.stream_indices)).to(self.device)
        pixels = training_pixels(config, clips, self.device)
        pixels, targets = mix(config, pixels, labels, len(self.classes), clips.first)
        self.model.train()
        # Drop path and dropout: the same after a resume.
        torch.manual_seed(torch_seed(config.run.seed, Stream.DROPOUT, clips.first))
        with autocast(config.train.precision, self.device):
            logits = self.model(pixels)
        loss = self._loss(logits.float(), targets)
        spread(loss / config.train.accumulate).backward()
        return loss.detach()


def build_classifier(config: FinetuneConfig, classes: int) -> VideoClassifier:
    """A freshly initialised model, as `seeded`."""
    head = config.classifier
    return seeded(
        config.run.seed,
        lambda: VideoClassifier(
            config.model, config.grid, classes, drop_path=head.drop_path, dropout=head.dropout
        ),
    )


def read_classifier(path: Path) -> TrainerState:
    """State in a checkpoint folder.

    Raises:
        CheckpointError: names the file and the fault.
    """
    classes = read_classes(path)
    files = {name: read_tensors(path, name) for name in ("classifier", "classifier_optimizer")}
    return TrainerState(read_progress(path).step, files, {"classes": classes})
