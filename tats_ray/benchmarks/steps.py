"""What a training step costs beside the published arithmetic: all systems in one process, their
steps in turn, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from tats_ray.benchmarks.results import Figure
from tats_ray.config import Config
from tats_ray.controller.step_cost import Bench, busy_seconds, motion_seconds, step_flops
from tats_ray.masking.adamae import AdaMAESettings
from tats_ray.models.numerics import default_device
from tats_ray.storage import replacing

REFERENCE = "reference"
_WARM_UP_STEPS = 3


@dataclass(frozen=True)
class StepCost:
    """Of one system.

    Attributes:
        seconds: per clip, float64 [repeats]; of all cores of a CPU, or by the clock on a GPU.
        activations: bytes per clip that the backward pass needs at once, weights not counted.
        peak_memory: most bytes allocated on a GPU; None on a CPU.
        flops: per clip, forward and backward; element-wise work is not counted.
        motion_seconds: per clip, of finding the motion that the system reads.
        losses: of the first and the last timed step, to show that it was training.
    """

    seconds: np.ndarray
    activations: float
    peak_memory: int | None
    flops: float
    motion_seconds: float
    losses: tuple[float, float]

    @property
    def time(self) -> Figure:
        """Of a clip."""
        return Figure.of(self.seconds, "s/clip")

    def figures(self) -> dict[str, Figure]:
        """What is kept from one measurement to the next."""
        return {
            "step": self.time,
            "activations": Figure(self.activations / 2**20, "MiB/clip", "memory"),
            "operations": Figure(self.flops / 1e9, "GFLOP/clip"),
        }


def measure_steps(configs: dict[str, Config], repeats: int) -> dict[str, StepCost]:
    """Costs of the systems, and under `reference` that of AdaMAE's arithmetic: its sampler over all
    tokens, attention with its matrix written out, a decoder over all masked tokens, fp32."""
    device = default_device()
    reference = reference_config(next(iter(configs.values())))
    cases = {REFERENCE: _Case(reference, device, plain_attention=True)}
    cases |= {name: _Case(config, device) for name, config in configs.items()}
    seconds = [[case.seconds() for case in cases.values()] for _ in range(repeats)]
    table = np.array(seconds)
    return {name: case.cost(table[:, column]) for column, (name, case) in enumerate(cases.items())}


def profile_step(config: Config, path: Path) -> None:
    """Writes a trace of one step, for chrome://tracing or Perfetto.

    Raises:
        StorageError: the file cannot be written.
    """
    bench = Bench(config, default_device())
    for _ in range(_WARM_UP_STEPS):
        bench.step()
    with torch.profiler.profile() as profiler:
        bench.step()
    with replacing(path) as aside:
        profiler.export_chrome_trace(str(aside))


def reference_config(config: Config) -> Config:
    """The same clips and sizes with AdaMAE's masks and arithmetic."""
    width = config.model.width
    heads = 8 if width % 8 == 0 else config.model.heads  # the code has 8
    masking = AdaMAESettings(system="adamae", ratio=config.masking.ratio, heads=heads, detach=False)
    decoder = config.model.decoder.model_copy(update={"attention": "self", "target_fraction": 1.0})
    return config.model_copy(
        update={
            "masking": masking,
            "model": config.model.model_copy(update={"decoder": decoder}),
            "train": config.train.model_copy(update={"precision": "fp32", "compile": False}),
        }
    )


class SavedActivations:
    """Bytes that autograd keeps for the backward pass while its `hooks` are entered; storages that
    several operations share count once, and weights not at all.

    Attributes:
        peak: most bytes kept at once.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self._users: Counter[int] = Counter()  # by storage
        self._bytes = 0
        self.peak = 0

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(lambda tensor: _Kept(self, tensor), lambda kept: kept.tensor)

    def count(self, tensor: Tensor, change: int) -> None:
        """One more (1) or less (-1) keeps the tensor."""
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._weights:
            return
        before = self._users[place]
        self._users[place] += change
        if (before == 0) != (self._users[place] == 0):
            self._bytes += change * storage.nbytes()
        self.peak = max(self.peak, self._bytes)


class _Kept:
    """A tensor that autograd keeps; counted until autograd lets it go."""

    def __init__(self, counter: SavedActivations, tensor: Tensor) -> None:
        self.tensor = tensor
        self._counter = counter
        counter.count(tensor, 1)

    def __del__(self) -> None:
        self._counter.count(self.tensor, -1)


class _Case:
    """One system's steps."""

    def __init__(
        self, config: Config, device: torch.device, *, plain_attention: bool = False
    ) -> None:
        self._config = config
        self._plain = plain_attention
        self._bench = Bench(config, device)
        self._clips = config.train.batch_size
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for _ in range(_WARM_UP_STEPS):
            self._step()
        cuda = device.type == "cuda"
        self._peak = torch.cuda.max_memory_allocated(device) if cuda else None
        self._saved = SavedActivations(self._bench.weights())
        with self._saved.hooks():
            self._step()

    def seconds(self) -> float:
        """Of one step, per clip."""
        return busy_seconds(self._step, self._bench.device) / self._clips

    def cost(self, seconds: np.ndarray) -> StepCost:
        losses = self._bench.losses()
        return StepCost(
            seconds=seconds,
            activations=self._saved.peak / self._clips,
            peak_memory=self._peak,
            flops=step_flops(self._config) / self._clips,
            motion_seconds=motion_seconds(self._config, len(seconds)),
            losses=(losses[-len(seconds)], losses[-1]),
        )

    def _step(self) -> None:
        kernel: AbstractContextManager[object] = nullcontext()
        if self._plain:
            kernel = sdpa_kernel(SDPBackend.MATH)
        with kernel:
            self._bench.step()
