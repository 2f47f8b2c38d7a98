"""The classifier's Ray Train workers."""

from __future__ import annotations

from typing import Any

import ray

from tats_ray.actors.train_worker import HubWorker, run_worker
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import validate_as
from tats_ray.data.labels import ClipLabels
from tats_ray.models.state import State
from tats_ray.training.finetune_trainer import ClassifierTrainer
from tats_ray.training.work import BatchItem


class ClassifierWorker(HubWorker):
    """One rank of fine-tuning."""

    trainer: ClassifierTrainer

    def __init__(
        self,
        config: FinetuneConfig,
        hub: Any,
        use_gpu: bool,
        classes: list[str],
        labels: ClipLabels,
    ) -> None:
        self.config = config
        self._classes = classes
        self._labels = labels
        super().__init__(config, hub, use_gpu)

    def build_trainer(self) -> ClassifierTrainer:
        return ClassifierTrainer(
            self.config, self._classes, self._labels, self.device, wrap=self.wrap
        )

    def train_step(self, item: BatchItem) -> None:
        self.trainer.train_step(self.read_share(item.batch))

    def weights(self) -> State:
        return {}  # nobody reads them while it trains; the version says how far it is


def classifier_worker(arguments: dict[str, Any]) -> None:
    """Ray Train's function on every worker."""
    config = validate_as(FinetuneConfig, arguments["config"])
    classes, labels = arguments["classes"], ray.get(arguments["labels"][0])
    use_gpu = arguments["use_gpu"]
    run_worker(
        arguments["hub"],
        config,
        lambda hub: ClassifierWorker(config, hub, use_gpu, classes, labels),
    )
