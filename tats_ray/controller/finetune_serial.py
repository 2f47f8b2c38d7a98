"""Fine-tuning in one process, without Ray."""

from __future__ import annotations

import torch

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.controller.executor import Finished
from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.data.labels import ClipLabels
from tats_ray.data.serial_stream import SerialClipStream, read_local
from tats_ray.data.stage import BlockPlan, Quarantine
from tats_ray.models.precision import default_device
from tats_ray.training.finetune_state import ClassifierState
from tats_ray.training.finetune_trainer import ClassifierTrainer


class SerialFinetuneBackend:
    """Every step is complete when `run_round` returns."""

    def __init__(
        self,
        config: FinetuneConfig,
        plan: BlockPlan,
        quarantined: dict[str, str],
        classes: list[str],
        labels: ClipLabels,
    ) -> None:
        self.config = config
        self._plan = plan
        self._quarantine = Quarantine(quarantined)
        self._classes = classes
        self._labels = labels
        self._done: Finished[ClassifierState] = Finished()

    def start(self, state: ClassifierState | None, cursor: Cursor, first_step: int) -> None:
        torch.set_num_threads(self.config.cluster.threads)
        self._trainer = ClassifierTrainer(
            self.config, self._classes, self._labels, default_device()
        )
        if state is not None:
            self._trainer.load(state)
        self._stream = SerialClipStream(self._plan, cursor, self._quarantine)

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        return self._stream.next_batch(first, clips)

    def run_round(self, step: int, batch: ClipBatch, *, snapshot: bool) -> None:
        self._trainer.train_step(read_local(batch))
        self._done.reports += self._trainer.reports()
        if snapshot:
            self._done.states.append(self._trainer.state())

    def finished(self) -> Finished[ClassifierState]:
        done, self._done = self._done, Finished()
        return done

    def finish(self, step: int) -> Finished[ClassifierState]:
        assert self._trainer.step == step, f"{self._trainer.step} steps are done, not {step}"
        self._done.states = [state for state in self._done.states if state.step != step]
        self._done.states.append(self._trainer.state())
        return self.finished()

    def quarantined(self) -> dict[str, str]:
        return dict(self._quarantine.known())

    def is_lost(self) -> bool:
        return False

    def close(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.close()
