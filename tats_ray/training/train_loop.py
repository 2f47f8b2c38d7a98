"""The long Ray Train run: every worker loops over the hub's numbered items."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, prepare_model
from torch import Tensor

from tats_ray.config import Config, config_from_dict
from tats_ray.data.ray_stream import read_remote
from tats_ray.errors import ComponentTimeoutError, TatsRayError
from tats_ray.models.sampler import TrajectorySampler, build_sampler
from tats_ray.models.state import load_model_state, model_state
from tats_ray.rl.versions import VersionedWeights
from tats_ray.training.trainer import MAETrainer
from tats_ray.training.work import WorkItem


class TrainWorker:
    """One rank. Rank 0 publishes weights, reports and snapshots."""

    def __init__(self, config: Config, hub: Any, use_gpu: bool) -> None:
        context = ray.train.get_context()
        self.config = config
        self.hub = hub
        self.rank, self.ranks = context.get_world_rank(), context.get_world_size()
        device = ray.train.torch.get_device() if use_gpu else torch.device("cpu")
        self.trainer = MAETrainer(config, device, wrap=self._wrap)
        self._sampler: TrajectorySampler | None = None
        self._sampler_version = -1

    def run(self) -> None:
        """Continues from the newest snapshot, works until the driver ends the run."""
        snapshot = ray.get(self.hub.newest_snapshot.remote())
        if snapshot is not None:
            self.trainer.load(ray.get(snapshot.ref))
        self._publish(snapshot=False, asked=False)
        while isinstance(item := self._next_item(), WorkItem):
            self._work(item)
        self._publish(snapshot=True, asked=True)

    def _work(self, item: WorkItem) -> None:
        share = len(item.batch) // self.ranks
        start = self.rank * share
        clips = read_remote(item.batch.rows(start, start + share))
        known = torch.from_numpy(item.visible[start : start + share])
        sampler = self._load_sampler(item.policy) if len(known) < share else None
        self.trainer.train_step(clips, self.trainer.complete(clips, known, sampler))
        train = self.config.train
        wanted = item.snapshot or self.trainer.step % train.snapshot_interval == 0
        if wanted or self.trainer.step % train.publish_interval == 0:
            self._publish(snapshot=wanted, asked=item.snapshot)

    def _load_sampler(self, policy: VersionedWeights | None) -> TrajectorySampler | None:
        if policy is None:
            return None
        if self._sampler is None:
            config = self.config
            self._sampler = build_sampler(
                config.masking.sampler, config.model.width, config.grid, config.run.seed
            ).to(self.trainer.device)
        if policy.version != self._sampler_version:
            load_model_state(self._sampler, ray.get(policy.ref))
            self._sampler_version = policy.version
        return self._sampler

    def _next_item(self) -> WorkItem | str:
        seconds = self.config.cluster.wait_seconds
        item = ray.get(self.hub.item.remote(self.trainer.step, seconds))
        if item is None:
            raise ComponentTimeoutError(
                f"Train worker {self.rank} waited {seconds:g} s for work item {self.trainer.step}; "
                "the driver or the decoding is stuck"
            )
        return item

    def _publish(self, *, snapshot: bool, asked: bool) -> None:
        """Reports, snapshot, weights: in this order, so that a bad step is never snapshot and a
        state is there when its report is."""
        reports = self.trainer.reports(self._mean_over_ranks)
        if self.rank > 0:
            return
        if snapshot:
            ray.get(self.hub.store_snapshot.remote(self.trainer.state(), asked))
        weights = model_state(self.trainer.mae)
        ray.get(self.hub.publish.remote(self.trainer.step, weights, reports))

    def _mean_over_ranks(self, table: Tensor) -> Tensor:
        if self.ranks > 1:
            torch.distributed.all_reduce(table)
            table /= self.ranks
        return table

    def _wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        return prepare_model(model, move_to_device=False) if self.ranks > 1 else model


def train_worker(arguments: dict[str, Any]) -> None:
    """Ray Train's function on every worker."""
    config = config_from_dict(arguments["config"])
    torch.set_num_threads(config.cluster.threads)
    hub = ray.get_actor(arguments["hub"])
    try:
        TrainWorker(config, hub, arguments["use_gpu"]).run()
    except TatsRayError as error:
        ray.get(hub.fail.remote(f"{type(error).__name__}: {error}"))
        raise


class TrainRun:
    """`TorchTrainer.fit` in a thread of the driver."""

    def __init__(
        self, config: Config, hub_name: str, storage: Path, shares: dict[str, float]
    ) -> None:
        """Args: shares: CPUs and GPUs of one worker, by Ray's resource names."""
        use_gpu = shares.get("GPU", 0) > 0
        self._trainer = TorchTrainer(
            train_worker,
            train_loop_config={"config": config.model_dump(), "hub": hub_name, "use_gpu": use_gpu},
            scaling_config=ray.train.ScalingConfig(
                num_workers=config.train.workers, use_gpu=use_gpu, resources_per_worker=shares
            ),
            run_config=ray.train.RunConfig(
                name=hub_name,
                storage_path=str(storage),
                failure_config=ray.train.FailureConfig(max_failures=config.train.max_failures),
            ),
        )
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Waits for the run's end; false at the time limit."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self.error = error
