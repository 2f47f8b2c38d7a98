"""Backends, their rounds as the driver runs them, and what a sampler ends up saying."""

from __future__ import annotations

from pathlib import Path

import torch

from tats_ray.config import Config
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.shares import Shares
from tats_ray.controller.finetune import LabelledData
from tats_ray.controller.finetune_ray import RayFinetuneBackend
from tats_ray.controller.ray_backend import RayBackend
from tats_ray.controller.serial_backend import SerialBackend
from tats_ray.data.appearance import build_labelled_plan
from tats_ray.data.clips import Cursor
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import build_plan
from tats_ray.masking.sampled import build_sampler
from tats_ray.models.state import State, load_model_state
from tests.conftest import tiny_config

SHARES = Shares(0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5)


def serial_backend(config: Config, manifest: Path) -> SerialBackend:
    return SerialBackend(config, build_plan(config, read_manifest(manifest)), {})


def ray_backend(config: Config, manifest: Path, folder: Path) -> RayBackend:
    """Args: folder: for Ray Train's own bookkeeping."""
    plan = build_plan(config, read_manifest(manifest))
    return RayBackend(config, plan, {}, shares=SHARES, storage=folder / "train")


def ray_finetune_backend(
    config: FinetuneConfig, data: LabelledData, folder: Path
) -> RayFinetuneBackend:
    """Args: folder: for Ray Train's own bookkeeping."""
    return RayFinetuneBackend(
        config, build_labelled_plan(config, data.table), {}, classes=data.classes,
        labels=data.labels, shares=SHARES, storage=folder,
    )  # fmt: skip


def drive_on_ray(synthetic, folder, steps, *overrides, between=None):
    """A whole tiny run on the cluster of the tests; returns what `drive` returns."""
    config = tiny_config("cluster.mode=local", f"train.steps={steps}", *overrides)
    return drive(ray_backend(config, synthetic.train, folder), config, steps, between=between)


def drive(backend, config, steps, state=None, cursor=None, first=0, between=None):
    """Runs rounds `first` to `steps`, with a snapshot after the second.

    Args:
        between: is called with the backend and the step after every round.

    Returns:
        Figures by step, states by step, and the cursor behind the last batch.
    """
    batch_size = config.train.batch_size
    reports, states = {}, {}
    after = cursor or Cursor()

    def note(finished):
        for report in finished.reports:
            assert report.step not in reports, "a step was reported twice"
            reports[report.step] = report.figures
        states.update({state.step: state for state in finished.states})

    try:
        backend.start(state, after, first)
        for step in range(first, steps):
            batch = backend.next_batch(step * batch_size, batch_size)
            after = batch.after
            backend.run_round(step, batch, snapshot=step + 1 == 2)
            note(backend.finished())
            if between is not None:
                between(backend, step)
        note(backend.finish(steps))
    finally:
        backend.close()
    assert list(reports) == list(range(first + 1, steps + 1)), "every step is reported in order"
    return reports, states, after


def log_probs(weights: State) -> torch.Tensor:
    """What a sampler says of fixed tokens: some of its weights cancel in the softmax and only
    collect rounding."""
    config = tiny_config()
    sampler = build_sampler(config.masking.sampler, config.model.width, config.grid, 0)
    load_model_state(sampler, weights)
    generator = torch.Generator().manual_seed(0)
    return sampler.log_probs(torch.randn(8, config.grid.tokens, 24, generator=generator))
