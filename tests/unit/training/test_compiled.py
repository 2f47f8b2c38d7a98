"""torch.compile over the model's step: one graph, and the same numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import random_clips, tiny_config

CPU = torch.device("cpu")
SYSTEMS = {
    "random": [],
    "adamae": ["masking.heads=2", "model.decoder.target_fraction=0.5"],
    "trackmae": ["model.motion_target.weight=1", "model.decoder.attention=cross"],
}


def _clips(config):
    clips = random_clips(config, 8)
    if config.motion_form == "none":
        return clips
    shape = (8, config.grid.time, config.motion_grid, config.motion_grid, 2)
    motion = np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32)
    return replace(clips, motion=motion)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_model_of_a_step_is_one_graph(system):
    """`fullgraph` fails where Python code that is not traced would cut it."""
    config = tiny_config(f"masking.system={system}", *SYSTEMS[system])
    plain, traced = MAETrainer(config, CPU), MAETrainer(config, CPU)
    torch.compiler.reset()
    traced.model = torch.compile(traced.parts, fullgraph=True, backend="eager")
    for trainer in (plain, traced):
        trainer.train_step(_clips(config))
    assert [report.metrics for report in plain.reports()] == [
        pytest.approx(report.metrics, rel=1e-6) for report in traced.reports()
    ]


@pytest.mark.slow
def test_a_compiled_run_computes_the_same():
    losses, weights = [], []
    for compiled in ("false", "true"):
        trainer = MAETrainer(tiny_config("masking.system=tube", f"train.compile={compiled}"), CPU)
        for step in range(3):
            trainer.train_step(random_clips(trainer.config, 8, first=8 * step, seed=step))
        losses.append([report.metrics["loss"] for report in trainer.reports()])
        weights.append(trainer.state().files["mae"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    plain, fused = weights
    assert plain.keys() == fused.keys()
    assert all(np.allclose(fused[name], value, atol=2e-4) for name, value in plain.items())
