"""Iterations as a run has them, on any executor, and what a sampler ends up saying."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pyarrow as pa
import torch

from tats_ray.actors.cluster import Resources
from tats_ray.config import Config
from tats_ray.controller.executor import StartingPoint, Task
from tats_ray.controller.finetune import LabelledData, finetuning_task
from tats_ray.controller.in_process import InProcessExecutor, in_process
from tats_ray.controller.loop import run_iterations
from tats_ray.controller.pretrain import pretraining_task
from tats_ray.data.clips import BlockSlice, ClipBatch, Cursor
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import Quarantine
from tats_ray.models.state import State, load_model_state
from tats_ray.training.checkpoint import Progress, RunState
from tats_ray.training.pretraining_model import build_policy
from tests.conftest import random_clips, tiny_config

RESOURCES = Resources(0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5)


class Recorder:
    """Takes everything that completes; wants the state after the second step.

    Attributes:
        metrics, states: by finished steps.
        after: place in the data behind the newest batch.
        newest: 0-based step that began last.
    """

    def __init__(self, after=None, between=None):
        """Args: between: is called after every iteration with its step and the number of steps
        that have been reported."""
        self.metrics, self.skipped, self.states = {}, {}, {}
        self.after, self.newest = after, -1
        self._between = between

    def begin(self, step, batch):
        self.after, self.newest = batch.after, step

    def wants_state(self, step):
        return step == 2

    def collect(self, completed, *, last_step=None):
        for report in completed.reports:
            assert report.step not in self.metrics, "a step was reported twice"
            self.metrics[report.step] = report.metrics
            self.skipped[report.step] = report.skipped
        self.states.update({state.step: state for state in completed.states})
        if self._between is not None and last_step is None:
            self._between(self.newest, len(self.metrics))


def task_without_videos(config: Config) -> Task:
    """Pre-training on clips that come from elsewhere."""
    return pretraining_task(config, pa.table({"path": pa.array([], pa.string())}))


class Training:
    """A tiny run in this process on seeded random clips.

    Attributes:
        step: finished steps.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.executor = InProcessExecutor(
            task_without_videos(config), self, Quarantine(), torch.device("cpu")
        )
        self.step = 0

    def after(self, step: int) -> RunState:
        """The state after so many steps."""
        self.step = run_iterations(self.executor, Recorder(), range(self.step, step))
        (state,) = self.executor.finish(step).states
        return state

    def next_batch(self, first: int, clips: int) -> ClipBatch:
        found = random_clips(self.config, clips, first=first, seed=first // clips)
        return ClipBatch(first, (BlockSlice(found, 0, clips),), Cursor())


def pretraining(config: Config, manifest: Path) -> Task:
    return pretraining_task(config, read_manifest(manifest))


def starting_point(
    storage: Path, state: RunState | None = None, cursor: Cursor | None = None, first: int = 0
) -> StartingPoint:
    """Args: storage: for what executors keep on disk."""
    return StartingPoint(Progress(first, 0, cursor or Cursor(), 0), state, {}, storage)


@contextmanager
def ray_executor(task: Task, start: StartingPoint):
    """On the cluster of the tests."""
    from tats_ray.controller.ray_executor import on_ray

    with on_ray(task, replace(start, storage=start.storage / "train"), RESOURCES) as executor:
        yield executor


def drive(opening, steps, first=0, between=None, after=None):
    """Runs steps `first` to `steps` on an executor.

    Args:
        opening: context manager of the executor.
        between: is called after every iteration with the executor and what it has arguments for
            of its step and the number of steps that have been reported.

    Returns:
        Metrics by step, states by step, and the cursor behind the last batch.
    """
    with opening as executor:
        call = None
        if between is not None:
            takes = len(signature(between).parameters)
            call = lambda *numbers: between(executor, *numbers[: takes - 1])  # noqa: E731
        recorder = Recorder(after or Cursor(), call)
        done = run_iterations(executor, recorder, range(first, steps))
        recorder.collect(executor.finish(done), last_step=done)
    wanted = list(range(first + 1, steps + 1))
    assert list(recorder.metrics) == wanted, "every step is reported in order"
    return recorder.metrics, recorder.states, recorder.after


def drive_serially(config, manifest, steps, state=None, cursor=None, first=0):
    start = starting_point(Path(), state, cursor, first)
    return drive(in_process(pretraining(config, manifest), start), steps, first, after=cursor)


def drive_on_ray(synthetic, folder, steps, *overrides, between=None):
    """A whole tiny run on the cluster of the tests; returns what `drive` returns."""
    config = tiny_config("cluster.mode=local", f"train.steps={steps}", *overrides)
    task = pretraining(config, synthetic.train)
    return drive(ray_executor(task, starting_point(folder)), steps, between=between)


def finetuning(config, data: LabelledData) -> Task:
    return finetuning_task(config, data)


def log_probs(config: Config, weights: State) -> torch.Tensor:
    """What a sampler says of fixed tokens: some of its weights cancel in the softmax and only
    collect rounding."""
    sampler = build_policy(config)
    load_model_state(sampler, weights)
    generator = torch.Generator().manual_seed(0)
    return sampler.log_probs(
        torch.randn(8, config.grid.tokens, config.sampler_input_width, generator=generator)
    )
