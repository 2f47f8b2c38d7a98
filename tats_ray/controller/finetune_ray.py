"""Fine-tuning on a cluster: Ray Data decodes and augments, Ray Train workers take the steps."""

from __future__ import annotations

from pathlib import Path

import ray

from tats_ray.actors.classifier_worker import classifier_worker
from tats_ray.actors.decode_stream import RayClipStream
from tats_ray.actors.hub import HubQuarantine
from tats_ray.actors.object_store import ITEMS_AHEAD
from tats_ray.actors.train_link import TrainLink
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.shares import Shares
from tats_ray.controller.executor import Finished
from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.data.labels import ClipLabels
from tats_ray.data.stage import BlockPlan
from tats_ray.training.finetune_state import ClassifierState
from tats_ray.training.work import BatchItem, News


class RayFinetuneBackend:
    """The driver runs a few batches ahead of the Train workers."""

    def __init__(
        self,
        config: FinetuneConfig,
        plan: BlockPlan,
        quarantined: dict[str, str],
        *,
        classes: list[str],
        labels: ClipLabels,
        shares: Shares,
        storage: Path,
    ) -> None:
        """Args: storage: directory for Ray Train's own bookkeeping."""
        self.config = config
        self._plan = plan
        self._quarantined = quarantined
        self._classes = classes
        self._labels = labels
        self._shares = shares
        self._storage = storage
        self._ahead = max(ITEMS_AHEAD, config.train.publish_interval)
        self._wanted: set[int] = set()

    def start(self, state: ClassifierState | None, cursor: Cursor, first_step: int) -> None:
        self._link = TrainLink(self.config, self._quarantined, state)
        self._link.start(
            classifier_worker,
            self._storage,
            self._shares,
            classes=self._classes,
            labels=[ray.put(self._labels)],
        )
        self._stream = RayClipStream(
            self._plan,
            cursor,
            HubQuarantine(self._link.hub),
            decode_cpus=self._shares.decode_cpus,
            wait_seconds=self.config.cluster.wait_seconds,
        )
        self._link.weights(first_step)

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        return self._stream.next_batch(first, clips)

    def run_round(self, step: int, batch: ClipBatch, *, snapshot: bool) -> None:
        self._link.weights(max(0, step - self._ahead))
        if snapshot:
            self._wanted.add(step + 1)
        self._link.push(BatchItem(step, batch, snapshot))

    def finished(self) -> Finished[ClassifierState]:
        return self._finished(self._link.news())

    def finish(self, step: int) -> Finished[ClassifierState]:
        self._wanted.add(step)
        return self._finished(self._link.finish(step))

    def quarantined(self) -> dict[str, str]:
        return self._link.quarantined()

    def is_lost(self) -> bool:
        return hasattr(self, "_link") and self._link.hub_is_dead()

    def close(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.close()
        if hasattr(self, "_link"):
            self._link.close()

    def _finished(self, news: News) -> Finished[ClassifierState]:
        """Each wanted state once, though a replay or the end may bring it again."""
        states = {state.step: state for state in news.states if state.step in self._wanted}
        self._wanted -= states.keys()
        return Finished(news.reports, list(states.values()))
