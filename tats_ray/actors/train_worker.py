"""The long Ray Train run of any model: every worker loops over the hub's numbered items."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import ray
import ray.train
import torch
from ray.exceptions import ActorDiedError
from ray.train.torch import TorchTrainer, prepare_model

from tats_ray.actors.decode_stream import read_remote
from tats_ray.actors.file_rendezvous import LoopbackTorchConfig
from tats_ray.config.job import JobConfig
from tats_ray.data.clips import ClipBatch, Clips
from tats_ray.errors import (
    ComponentFailedError,
    ComponentTimeoutError,
    NonFiniteError,
    TatsRayError,
)
from tats_ray.models.nonfinite import Ranks
from tats_ray.models.state import State
from tats_ray.training.work import NumberedItem, StepReport


class Trainer(Protocol):
    """Model, optimiser and step of one rank; `step` counts finished steps."""

    step: int

    def reports(self, ranks: Ranks) -> list[StepReport]: ...

    def state(self) -> Any: ...

    def load(self, state: Any) -> None: ...


class HubWorker(ABC):
    """One rank. Rank 0 publishes weights, reports and snapshots."""

    def __init__(self, config: JobConfig, hub: Any, use_gpu: bool) -> None:
        context = ray.train.get_context()
        self._job = config
        self.hub = hub
        self.ranks = Ranks(context.get_world_rank(), context.get_world_size())
        self.device = ray.train.torch.get_device() if use_gpu else torch.device("cpu")
        self.trainer = self.build_trainer()

    @abstractmethod
    def build_trainer(self) -> Trainer:
        """The model on `device`, wrapped by `wrap`."""

    @abstractmethod
    def train_step(self, item: Any) -> None:
        """Takes the step that an item asks for."""

    @abstractmethod
    def weights(self) -> State:
        """What is published for others to read."""

    def run(self) -> None:
        """Continues from the newest snapshot, works until the driver ends the run."""
        snapshot = ray.get(self.hub.newest_snapshot.remote())
        if snapshot is not None:
            self.trainer.load(ray.get(snapshot.ref))
        self._publish(snapshot=False, asked=False)
        while not isinstance(item := self._next_item(), str):
            self.train_step(item)
            train = self._job.train
            wanted = item.snapshot or self.trainer.step % train.snapshot_interval == 0
            if wanted or self.trainer.step % train.publish_interval == 0:
                self._publish(snapshot=wanted, asked=item.snapshot)
        self._publish(snapshot=True, asked=True)

    def share(self, batch: ClipBatch) -> range:
        """Rows of a global batch that are this rank's."""
        size, rank = len(batch) // self.ranks.size, self.ranks.rank
        return range(rank * size, (rank + 1) * size)

    def read_share(self, batch: ClipBatch) -> Clips:
        """This rank's clips."""
        rows = self.share(batch)
        return read_remote(batch.rows(rows.start, rows.stop))

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Makes a model data-parallel."""
        return prepare_model(model, move_to_device=False) if self.ranks.size > 1 else model

    def _next_item(self) -> NumberedItem | str:
        seconds = self._job.cluster.wait_seconds
        item = ray.get(self.hub.item.remote(self.trainer.step, seconds))
        if item is None:
            raise ComponentTimeoutError(
                f"Train worker {self.ranks.rank} waited {seconds:g} s for work item "
                f"{self.trainer.step}; the driver or the decoding is stuck"
            )
        return item

    def _publish(self, *, snapshot: bool, asked: bool) -> None:
        """Reports, snapshot, weights: in this order, so that a bad step is never snapshot.

        The reports go with both, and the hub takes each once: a worker may die in between.
        """
        reports = self.trainer.reports(self.ranks)
        if self.ranks.rank > 0:
            return
        if snapshot:
            ray.get(self.hub.store_snapshot.remote(self.trainer.state(), asked, reports))
        ray.get(self.hub.publish.remote(self.trainer.step, self.weights(), reports))


def run_worker(hub_name: str, config: JobConfig, build: Callable[[Any], HubWorker]) -> None:
    """Runs a rank; a fault that a restart would only meet again ends the whole run.

    Args:
        build: makes the worker for the hub.
    """
    torch.set_num_threads(config.cluster.threads)
    hub = ray.get_actor(hub_name)
    try:
        build(hub).run()
    except ActorDiedError:
        return  # the hub is the only actor called; without it the driver starts everything anew
    except NonFiniteError as error:
        ray.get(hub.fail.remote(error))
        raise
    except TatsRayError as error:
        failure = f"a Train worker stopped the run: {type(error).__name__}: {error}"
        ray.get(hub.fail.remote(ComponentFailedError(failure)))
        raise


class TrainRun:
    """`TorchTrainer.fit` in a thread of the driver."""

    def __init__(
        self,
        config: JobConfig,
        hub_name: str,
        storage: Path,
        shares: dict[str, float],
        worker: Callable[[dict[str, Any]], None],
        **arguments: Any,
    ) -> None:
        """Args:
        shares: CPUs and GPUs of one worker, by Ray's resource names.
        worker: Ray Train's function on every worker; gets config (as a mapping), hub (its name),
            use_gpu and `arguments`.
        """
        use_gpu = shares.get("GPU", 0) > 0
        self._trainer = TorchTrainer(
            worker,
            train_loop_config={
                "config": config.model_dump(),
                "hub": hub_name,
                "use_gpu": use_gpu,
                **arguments,
            },
            torch_config=LoopbackTorchConfig() if config.cluster.mode == "local" else None,
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
