"""The autoencoder's Ray Train workers."""

from __future__ import annotations

from typing import Any

import ray
import torch

from tats_ray.actors.train_worker import HubWorker, run_worker
from tats_ray.config import Config, config_from_dict
from tats_ray.models.sampler import TrajectorySampler
from tats_ray.models.state import State, load_model_state, model_state
from tats_ray.rl.versions import VersionedWeights
from tats_ray.training.pretraining_model import build_policy
from tats_ray.training.trainer import MAETrainer
from tats_ray.training.work import WorkItem


class MAEWorker(HubWorker):
    """One rank of the autoencoder's training."""

    trainer: MAETrainer

    def __init__(self, config: Config, hub: Any, use_gpu: bool) -> None:
        self.config = config
        self._sampler: TrajectorySampler | None = None
        self._sampler_version = -1
        super().__init__(config, hub, use_gpu)

    def build_trainer(self) -> MAETrainer:
        return MAETrainer(self.config, self.device, wrap=self.wrap)

    def train_step(self, item: WorkItem) -> None:
        rows = self.share(item.batch)
        clips = self.read_share(item.batch)
        known = torch.from_numpy(item.visible[rows.start : rows.stop])
        sampler = self._load_sampler(item.policy) if len(known) < len(rows) else None
        self.trainer.train_step(clips, self.trainer.complete(clips, known, sampler))

    def weights(self) -> State:
        return model_state(self.trainer.mae)

    def _load_sampler(self, policy: VersionedWeights | None) -> TrajectorySampler | None:
        if policy is None:
            return None
        if self._sampler is None:
            config = self.config
            self._sampler = build_policy(config).to(self.trainer.device)
        if policy.version != self._sampler_version:
            load_model_state(self._sampler, ray.get(policy.ref))
            self._sampler_version = policy.version
        return self._sampler


def mae_worker(arguments: dict[str, Any]) -> None:
    """Ray Train's function on every worker."""
    config = config_from_dict(arguments["config"])
    use_gpu = arguments["use_gpu"]
    run_worker(arguments["hub"], config, lambda hub: MAEWorker(config, hub, use_gpu))
