"""What Ray adds to decoding, to weights on their way and to rollouts, for tats-ray benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

import ray
import torch
from torch import Tensor

from tats_ray.actors.cluster import Resources
from tats_ray.actors.decode_stream import RayClipStream
from tats_ray.actors.hub import running_hub
from tats_ray.actors.ppo_algorithm import MaskingPPO, ppo_algorithm
from tats_ray.actors.rllib_compat import actor_manager
from tats_ray.actors.rollout_worker import MaskingEnvRunner
from tats_ray.config import Config
from tats_ray.data.clips import Clips, Cursor
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.stage import BlockPlan, Quarantine, decode_block
from tats_ray.models.mae import build_mae
from tats_ray.models.state import VersionedWeights, model_state
from tats_ray.rl.environment import ReconstructionEnvironment
from tats_ray.storage import replacing
from tats_ray.training.policy import build_environment


def pool_seconds(plan: BlockPlan, workers: int, blocks: int) -> float:
    """Time to decode blocks in so many decoder processes, without Ray."""
    decoders = [DecoderProcess() for _ in range(workers)]
    book = Quarantine()

    def decode(worker: int, numbers: range) -> None:
        for number in numbers:
            decode_block(plan, number, decoders[worker], book)

    def all_workers(numbers: range) -> None:
        shares = [numbers[worker::workers] for worker in range(workers)]
        list(threads.map(decode, range(workers), shares))

    with ThreadPoolExecutor(workers) as threads:
        all_workers(range(workers))  # starts the processes
        seconds = _seconds(lambda: all_workers(range(workers, workers + blocks)))
    for decoder in decoders:
        decoder.close()
    return seconds


def stream_seconds(plan: BlockPlan, config: Config, blocks: int) -> float:
    """Time for so many blocks to come through Ray Data, behind a first window."""
    size, warm_up = plan.data.block_clips, plan.data.prefetch_blocks

    def take(numbers: range) -> None:
        for number in numbers:
            stream.next_batch(number * size, size)

    with closing(_stream(plan, config)) as stream:
        take(range(warm_up))
        return _seconds(lambda: take(range(warm_up, warm_up + blocks)))


class _Receiver:
    """Takes weights as a rollout worker does."""

    def __init__(self, config: Config) -> None:
        torch.set_num_threads(config.cluster.threads)
        self._environment = build_environment(config, torch.device("cpu"))

    def load(self, mae: VersionedWeights) -> int:
        self._environment.load(mae.version, ray.get(mae.ref))
        return mae.version


def weights_seconds(config: Config, repeats: int) -> list[float]:
    """Times from a trained autoencoder to its use in another process, through the hub."""
    mae = build_mae(config.model, config.grid, config.run.seed)
    receiver = ray.remote(_Receiver).options(num_cpus=0).remote(config)

    def publish(version: int) -> None:
        hub.publish(version, model_state(mae), [])
        found = hub.weights(version, config.cluster.wait_seconds)
        assert ray.get(receiver.load.remote(found)) == version

    with running_hub("hub-of-weights", {}) as hub:
        publish(1)  # starts the processes
        seconds = [_seconds(partial(publish, version)) for version in range(2, repeats + 2)]
    ray.kill(receiver)
    return seconds


class FixedCostEnvironment:
    """Answers any mask after a fixed time, so that only what surrounds it grows with workers."""

    seconds = 0.2  # of a draw of any number of clips

    def __init__(self, config: Config) -> None:
        self.inputs = build_environment(config, torch.device("cpu")).inputs
        self.device, self.precision, self.version = torch.device("cpu"), "fp32", 0
        self._tokens = config.grid.tokens, config.sampler_input_width
        self._targets = config.reward_targets

    def load(self, version: int, state: object) -> None:
        self.version = version

    def observe(self, clips: Clips) -> Tensor:
        return torch.zeros(len(clips), *self._tokens)

    def score(self, visible: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        targets = torch.arange(self._targets).expand(len(visible), -1)
        return targets, torch.zeros(targets.shape)


class FixedCostEnvRunner(MaskingEnvRunner):
    """A rollout worker but for its environment; RLlib is given workers as classes."""

    def make_env(self) -> None:
        super().make_env()
        self.env.environment = cast(ReconstructionEnvironment, FixedCostEnvironment(self._settings))


def rollout_seconds(
    config: Config, plan: BlockPlan, workers: set[int], rounds: int, folder: Path
) -> dict[int, list[float]]:
    """Times until each of so many rollout workers has answered one chunk.

    Args:
        config: with the largest number of workers.
        plan: where clips come from.
        folder: for what native code writes to stderr.
    """
    cluster = config.cluster
    shares = Resources(
        cluster.rollout_worker_cpus, 0.0, cluster.learner_cpus, 0.0,
        cluster.train_worker_cpus, 0.0, cluster.decode_cpus,
    )  # fmt: skip
    mae = build_mae(config.model, config.grid, config.run.seed)
    weights = VersionedWeights(0, ray.put(model_state(mae)))
    found = {}
    log = folder / "start.log"
    with (
        closing(_stream(plan, config)) as stream,
        ppo_algorithm(config, shares, log, FixedCostEnvRunner) as algorithm,
    ):
        batch = stream.next_batch(0, config.rl.rollout_clips * max(workers))
        for count in sorted(workers, reverse=True):
            _use_workers(algorithm, count)
            chunks = batch.rows(0, count * config.rl.rollout_clips)
            answer = partial(algorithm.roll_out, 0, chunks, weights)
            answer()
            found[count] = [_seconds(answer) for _ in range(rounds)]
    return found


def save_timeline(path: Path) -> None:
    """Ray's tasks and actors' calls so far, for chrome://tracing or Perfetto.

    Raises:
        StorageError: the file cannot be written.
    """
    with replacing(path) as aside:
        ray.timeline(str(aside))


def _stream(plan: BlockPlan, config: Config) -> RayClipStream:
    return RayClipStream(
        plan,
        Cursor(),
        Quarantine(),
        decode_cpus=config.cluster.decode_cpus,
        wait_seconds=config.cluster.wait_seconds,
    )


def _use_workers(algorithm: MaskingPPO, count: int) -> None:
    """Takes the others for lost, which are not asked for while there are healthy ones."""
    manager = actor_manager(algorithm.env_runner_group)
    for worker in manager.actors():
        manager.set_actor_state(worker, healthy=worker <= count)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
