"""NaN and Inf in one process: the step, its clips, and the weights as they were."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tats_ray.controller.pretrain import pretrain
from tats_ray.errors import NonFiniteError
from tats_ray.tracking.metrics_file import read_records
from tats_ray.training.checkpoint import checkpoints, read_state
from tats_ray.training.classifier import ClassifierTrainer
from tests.conftest import random_clips, tiny_config
from tests.finetuning import clip_labels, finetune_config
from tests.nonfinite import flat_settings, flat_video

SYSTEMS = {"tube": "the autoencoder's gradient", "tats": "PPO's gradient or loss"}


@pytest.fixture
def flat(synthetic, tmp_path):
    return flat_video(synthetic, tmp_path)


def _config(flat, synthetic, tmp_path, system, *more):
    settings = flat_settings(flat, synthetic, tmp_path / "runs")
    return tiny_config(*settings, f"masking.system={system}", *more)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_ends_before_the_step_and_names_it(system, flat, synthetic, tmp_path):
    config = _config(flat, synthetic, tmp_path, system)
    step = flat.step(8)
    with pytest.raises(NonFiniteError, match=f"^step {step}: {SYSTEMS[system]}") as caught:
        pretrain(config, must_resume=False)
    (noted,) = (tmp_path / "runs/test/nonfinite.jsonl").read_text().splitlines()
    noted = json.loads(noted)
    assert flat.path in noted["videos"]
    assert len(noted["videos"]) == 8
    assert "and 4 more in " in str(caught.value)
    assert len(checkpoints(tmp_path / "runs/test/checkpoints")) == step - 1


@pytest.mark.parametrize("system", SYSTEMS)
def test_steps_within_the_limit_are_left_out_and_counted(system, flat, synthetic, tmp_path, capsys):
    config = _config(flat, synthetic, tmp_path, system, "train.skip_nonfinite=1")
    step = flat.step(8)
    assert pretrain(config, must_resume=False)["steps"] == 3
    states = [read_state(path) for path in checkpoints(tmp_path / "runs/test/checkpoints")]
    parts = [("mae", [state.trainer.files["mae"] for state in states])]
    if system == "tats":
        parts.append(("sampler", [state.policy.sampler for state in states]))
    for name, weights in parts:
        before, bad, behind = weights[step - 2 : step + 1]
        assert all(np.array_equal(before[key], bad[key]) for key in before), name
        assert any(not np.array_equal(bad[key], behind[key]) for key in bad), name
    records = read_records(tmp_path / "runs/test/metrics.jsonl")
    counts = [record["skipped_steps"] for record in records]
    assert counts == [float(done >= step) for done in range(1, 4)]
    assert ["loss" in record for record in records] == [done != step for done in range(1, 4)]
    if system == "tats":
        assert [record["ppo/skipped_updates"] for record in records] == counts
    assert "NaN" not in (tmp_path / "runs/test/metrics.jsonl").read_text()
    printed = capsys.readouterr().out
    assert f"step {step}: {SYSTEMS[system]}" in printed
    assert "left out; clips of: " in printed


@pytest.mark.parametrize("limit", [0, 1])
def test_fine_tuning_has_the_same_guard(limit):
    config = finetune_config(f"train.skip_nonfinite={limit}")
    labels = clip_labels(2, 20, config)
    trainer = ClassifierTrainer(config, ["a", "b"], labels, torch.device("cpu"))
    clips = random_clips(tiny_config(), 8)
    trainer.train_step(clips)
    before = trainer.state().files["classifier"]
    handle = trainer.classifier.head.weight.register_hook(lambda gradient: gradient * np.inf)
    trainer.train_step(clips)
    handle.remove()
    after = trainer.state().files["classifier"]
    assert all(np.array_equal(value, after[key]) for key, value in before.items())
    trainer.train_step(clips)
    behind = trainer.state().files["classifier"]
    moved = not np.array_equal(behind["head.weight"], after["head.weight"])
    assert moved == bool(limit)
    if not limit:
        with pytest.raises(NonFiniteError, match="step 2: the classifier's gradient") as caught:
            trainer.reports()
        assert caught.value.clips == tuple(range(8))
        return
    reports = trainer.reports()
    assert [report.metrics["skipped_steps"] for report in reports] == [0, 1, 1]
    assert [len(report.skipped) for report in reports] == [0, 1, 0]
    assert "loss" not in reports[1].metrics
