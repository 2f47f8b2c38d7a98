"""Training steps in one process on clips that lie in memory: their time and their operations."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tats_ray.config import Config
from tats_ray.config.masking import RolloutSettings
from tats_ray.controller.executor import Completed
from tats_ray.controller.in_process import InProcessExecutor
from tats_ray.controller.loop import run_iterations
from tats_ray.controller.pretrain import pretraining_task
from tats_ray.data.clips import BlockSlice, ClipBatch, Clips, Cursor
from tats_ray.data.decode import decode_clips
from tats_ray.data.motion.prior import clips_motion
from tats_ray.data.stage import Quarantine, clip_request, motion_request
from tats_ray.data.synthetic.scene import FRAMES_PER_SECOND, random_scene, render
from tats_ray.data.video_writer import write_h264
from tats_ray.models.numerics import default_device
from tats_ray.training.mae_trainer import MAETrainer

_WARM_UP_STEPS = 3


class Bench:
    """One system's iterations in this process, on clips that lie in memory.

    It is the source of the batches of its executor and takes what these complete.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        if isinstance(config.masking, RolloutSettings):  # every step is to be one of its own
            masking = config.masking.model_copy(update={"warmup_steps": 0})
            config = config.model_copy(update={"masking": masking})
        manifest = pa.table({"path": pa.array([], pa.string())})
        task = pretraining_task(config, manifest)
        self.clips = random_clips(config)
        self.executor = InProcessExecutor(task, self, Quarantine(), device)
        self.device = device
        self._losses: list[float] = []
        self._step = 0

    def seconds(self) -> float:
        """Takes one step; returns its time."""
        return clock_seconds(self.step, self.device)

    def step(self) -> None:
        """One iteration on the same clips."""
        step = self._step
        self._step = run_iterations(self.executor, self, range(step, step + 1))

    def weights(self) -> list[Tensor]:
        """Everything that is trained."""
        trainer = self.executor.trainer
        assert isinstance(trainer, MAETrainer), "pre-training is timed"
        trained: list[nn.Module] = [trainer.parts]
        if self.executor.policy is not None:
            trained.append(self.executor.policy.sampler)
        return [weight for model in trained for weight in model.parameters()]

    def losses(self) -> list[float]:
        """Of all steps so far."""
        self.collect(self.executor.finish(self._step))
        return self._losses

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        return ClipBatch(first, (BlockSlice(self.clips, 0, clips),), Cursor())

    def begin(self, step: int, batch: ClipBatch) -> None: ...

    def wants_state(self, step: int) -> bool:
        return False

    def collect(self, completed: Completed, *, last_step: int | None = None) -> None:
        self._losses += [report.metrics["loss"] for report in completed.reports]


def step_seconds(config: Config, steps: int) -> float:
    """Median time of a serial training step by the clock, on random clips that lie in memory;
    decoding is not included."""
    torch.set_num_threads(config.cluster.threads)
    bench = Bench(config, default_device())
    seconds = [bench.seconds() for _ in range(_WARM_UP_STEPS + steps)]
    return float(np.median(seconds[_WARM_UP_STEPS:]))


def step_flops(config: Config) -> float:
    """Floating-point operations of one serial training step: forward and backward of the
    autoencoder, of the masker, and of rollouts and PPO where there are some. Decoding, motion
    estimation and element-wise work are not counted."""
    bench = Bench(config, default_device())
    # PyTorch counts no operations in its fused attention on a CPU; the plain one does the same.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        bench.step()
    return float(counter.get_total_flops())


def equal_cost_steps(steps: int, reference: float, cost: float) -> int:
    """Steps of `cost` each that together cost as much as `steps` of `reference` each."""
    return max(1, round(steps * reference / cost))


def motion_seconds(config: Config, clips: int) -> float:
    """Median time to find the motion of a generated clip, in this process."""
    request = motion_request(config)
    if request is None:
        return 0.0
    data = config.data
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "clip.mp4")
        count = (data.frames - 1) * data.stride + 1
        settings = data.synthetic.model_copy(update={"frames": count, "size": data.stored_height})
        frames = render(random_scene(settings, "linear", 0)).frames
        write_h264(Path(path), frames, FRAMES_PER_SECOND)
        shown = decode_clips(clip_request(data, None, {"path": path}, [0.0])).frames
        places = np.arange(data.frames)[None] * data.stride
        find = partial(clips_motion, request, path, shown, places)
        return float(np.median([clock_seconds(find, torch.device("cpu")) for _ in range(clips)]))


def random_clips(config: Config) -> Clips:
    """A batch of noise, with motion where the system reads it."""
    data, count = config.data, config.train.batch_size
    shape = (count, data.frames, data.stored_height, data.stored_width, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    motion = None
    if config.motion_form != "none":
        shape = (count, config.grid.time, config.motion_grid, config.motion_grid, 2)
        motion = np.random.default_rng(1).normal(0, 0.02, shape).astype(np.float32)
    aspects = np.full(count, data.stored_width / data.stored_height)
    return Clips(frames, aspects, np.arange(count), 0, motion)


def busy_seconds(work: Callable[[], object], device: torch.device) -> float:
    """CPU time of all threads of this process, or on a GPU time by the clock."""
    if device.type == "cuda":
        return clock_seconds(work, device)
    started = time.process_time()
    work()
    return time.process_time() - started


def clock_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time by the clock, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
