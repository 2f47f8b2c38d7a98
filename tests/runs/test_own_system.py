"""A masking system that is no part of the package pre-trains as any other, by its name alone."""

from __future__ import annotations

import numpy as np

from tats_ray.controller.pretrain import pretrain
from tats_ray.training.checkpoint import checkpoints, read_state
from tests.conftest import tiny_config


def _trained(synthetic, folder, field):
    """Summary of a run, and what it learned."""
    config = tiny_config(
        "masking.system=examples.checkerboard:Checkerboard", f"masking.field={field}",
        "data.size=64", f"run.output_dir={folder}", f"data.manifest={synthetic.train}",
        f"data.held_out_manifest={synthetic.held_out}", "tracking.mlflow=false", "train.steps=4",
    )  # fmt: skip
    summary = pretrain(config, must_resume=False)
    return summary, read_state(checkpoints(folder / "test/checkpoints")[-1]).trainer.files["mae"]


def test_the_example_trains_and_its_setting_decides_what_is_learned(synthetic, tmp_path):
    summary, weights = _trained(synthetic, tmp_path / "one", 1)
    assert summary["steps"] == 4
    assert np.isfinite(summary["loss_last"])
    assert summary["motion_enrichment"] > 0
    assert list((tmp_path / "one/test/pictures").glob("*.png"))
    _, same = _trained(synthetic, tmp_path / "again", 1)
    _, other = _trained(synthetic, tmp_path / "two", 2)
    assert all(np.array_equal(value, same[name]) for name, value in weights.items())
    assert any(not np.array_equal(value, other[name]) for name, value in weights.items())
