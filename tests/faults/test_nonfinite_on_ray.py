"""NaN and Inf on one of two real workers: nobody takes the step, and its clips are named."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tats_ray.controller.finetune import read_data
from tats_ray.controller.loop import run_iterations
from tats_ray.controller.pretrain import pretrain
from tats_ray.errors import NonFiniteError
from tats_ray.tracking.metrics_file import read_records
from tats_ray.training.checkpoint import checkpoints, read_state
from tats_ray.training.classifier import ClassifierTrainer
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config
from tests.finetuning import PLAIN, finetune_config
from tests.iterations import (
    Recorder,
    drive,
    finetuning,
    pretraining,
    ray_executor,
    starting_point,
)
from tests.nonfinite import flat_settings, flat_video

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("cluster")]

TWO = ["cluster.mode=local", "train.workers=2", "rl.staleness=0"]
BAD_STEP = 1  # 0-based, of the faulty workers below


@pytest.fixture
def flat(synthetic, tmp_path):
    return flat_video(synthetic, tmp_path)


def _faulty(trainer_class):
    """A trainer whose rank 1 has, at one step, an infinite gradient of a finite loss."""

    class Faulty(trainer_class):
        def train_step(self, clips, masks=None):
            # Of two workers the second one has the second half of every batch of 8.
            faulty = clips.first == 8 * BAD_STEP + 4
            parameter = list(self.model.parameters())[-1]
            spoil = parameter.register_hook(
                lambda gradient: gradient * math.inf if faulty else gradient
            )
            super().train_step(clips, masks)
            spoil.remove()

    return Faulty


def _weights(output, part):
    states = [read_state(path) for path in checkpoints(output / "runs/test/checkpoints")]
    return [state.files()[part] for state in states]


def _assert_left_out(weights, step):
    before, bad, behind = weights[step - 2 : step + 1]
    assert all(np.array_equal(before[key], bad[key]) for key in before)
    assert any(not np.array_equal(bad[key], behind[key]) for key in bad)


def test_one_workers_nan_stops_both_before_the_step(flat, synthetic, tmp_path):
    config = tiny_config(
        *flat_settings(flat, synthetic, tmp_path / "runs"), *TWO, "masking.system=tube"
    )
    step, rank = flat.step(8), flat.rank(8, 2)
    wanted = f"^step {step}, Train worker {rank}: the autoencoder's gradient is not finite"
    with pytest.raises(NonFiniteError, match=wanted) as caught:
        pretrain(config, must_resume=False)
    assert flat.path in str(caught.value)
    assert len(caught.value.clips) == 4
    assert len(checkpoints(tmp_path / "runs/test/checkpoints")) == step - 1


def test_both_workers_leave_the_step_out_and_stay_alike(flat, synthetic, tmp_path):
    """As in one process; had one of the two taken the step, the next one would differ."""
    ends = []
    for name, more in (("ray", TWO), ("serial", [])):
        config = tiny_config(
            *flat_settings(flat, synthetic, tmp_path / name / "runs"), *more,
            "masking.system=tube", "train.skip_nonfinite=1",
        )  # fmt: skip
        pretrain(config, must_resume=False)
        weights = _weights(tmp_path / name, "mae")
        _assert_left_out(weights, flat.step(8))
        ends.append(weights[-1])
    assert all(np.allclose(ends[0][key], ends[1][key], rtol=0, atol=2e-5) for key in ends[0])
    records = read_records(tmp_path / "ray/runs/test/metrics.jsonl")
    assert [record["skipped_steps"] for record in records] == [0.0, 1.0, 1.0]


def test_an_infinite_gradient_of_a_finite_loss(synthetic, tmp_path):
    config = tiny_config("masking.system=tube", *TWO)
    task = replace(
        pretraining(config, synthetic.train), build_trainer=partial(_faulty(MAETrainer), config)
    )
    wanted = rf"^step {BAD_STEP + 1}, Train worker 1: the autoencoder's gradient .*\(loss 1\."
    with pytest.raises(NonFiniteError, match=wanted) as caught:
        drive(ray_executor(task, starting_point(tmp_path)), 4)
    assert caught.value.clips == (12, 13, 14, 15)


@pytest.mark.parametrize("limit", [0, 1])
def test_ppo_with_two_learners(flat, synthetic, tmp_path, limit):
    config = tiny_config(
        *flat_settings(flat, synthetic, tmp_path / "runs"), "cluster.mode=local", "rl.learners=2",
        "rl.staleness=0", f"train.skip_nonfinite={limit}",
    )  # fmt: skip
    step, rank = flat.step(8), flat.rank(8, 2)
    if limit:
        pretrain(config, must_resume=False)
        _assert_left_out(_weights(tmp_path, "sampler"), step)
        records = read_records(tmp_path / "runs/test/metrics.jsonl")
        assert [record["ppo/skipped_updates"] for record in records] == [0.0, 1.0, 1.0]
        return
    wanted = f"^step {step}, PPO learner {rank}: PPO's gradient or loss is not finite"
    with pytest.raises(NonFiniteError, match=wanted) as caught:
        pretrain(config, must_resume=False)
    assert flat.path in str(caught.value)


def test_fine_tuning_on_two_workers(synthetic, tmp_path):
    config = finetune_config(
        f"data.manifest={synthetic.train}", f"data.test_manifest={synthetic.held_out}", *PLAIN,
        "cluster.mode=local", "train.workers=2", "train.skip_nonfinite=1",
    )  # fmt: skip
    data = read_data(config)
    build = partial(_faulty(ClassifierTrainer), config, data.classes, data.labels)
    task = replace(finetuning(config, data), build_trainer=build)
    recorder = Recorder()
    recorder.wants_state = lambda step: True
    with ray_executor(task, starting_point(tmp_path)) as executor:
        run_iterations(executor, recorder, range(3))
        recorder.collect(executor.finish(3), last_step=3)
    assert [recorder.metrics[s]["skipped_steps"] for s in (1, 2, 3)] == [0.0, 1.0, 1.0]
    (fault,) = recorder.skipped[BAD_STEP + 1]
    assert fault.what.startswith("step 2, Train worker 1: the classifier's gradient")
    assert len(fault.clips) == 4
    weights = [recorder.states[step].trainer.files["classifier"] for step in (1, 2, 3)]
    _assert_left_out(weights, BAD_STEP + 1)
