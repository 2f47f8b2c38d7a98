"""NaN and Inf on one of two real workers: nobody takes the step, and its clips are named."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tats_ray.controller import finetune_ray, ray_backend
from tats_ray.controller.finetune import read_data
from tats_ray.controller.pretrain import pretrain
from tats_ray.data.clips import Cursor
from tats_ray.errors import NonFiniteError
from tats_ray.tracking.metrics_file import read_records
from tats_ray.training.checkpoint import checkpoints, read_state
from tests.conftest import tiny_config
from tests.finetuning import PLAIN, finetune_config
from tests.nonfinite import flat_settings, flat_video
from tests.rounds import ray_finetune_backend

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("cluster")]

TWO = ["cluster.mode=local", "train.workers=2", "rl.staleness=0"]
BAD_STEP = 1  # 0-based, of the faulty workers below


@pytest.fixture
def flat(synthetic, tmp_path):
    return flat_video(synthetic, tmp_path)


def _faulty(worker_class):
    """A Train function whose rank 1 has, at one step, an infinite gradient of a finite loss."""

    def train(arguments):
        from tats_ray.training import finetune_loop, train_loop

        module = finetune_loop if worker_class == "ClassifierWorker" else train_loop

        class Faulty(getattr(module, worker_class)):
            def train_step(self, item):
                faulty = self.ranks.rank == 1 and item.step == BAD_STEP
                parameter = list(self.trainer.model.parameters())[-1]
                spoil = parameter.register_hook(
                    lambda gradient: gradient * math.inf if faulty else gradient
                )
                super().train_step(item)
                spoil.remove()

        setattr(module, worker_class, Faulty)
        name = "classifier_worker" if worker_class == "ClassifierWorker" else "mae_worker"
        getattr(module, name)(arguments)

    return train


def _weights(output, part):
    states = [read_state(path) for path in checkpoints(output / "runs/test/checkpoints")]
    return [getattr(state, part[0]).__getattribute__(part[1]) for state in states]


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
        weights = _weights(tmp_path / name, ("train", "mae"))
        _assert_left_out(weights, flat.step(8))
        ends.append(weights[-1])
    assert all(np.allclose(ends[0][key], ends[1][key], rtol=0, atol=2e-5) for key in ends[0])
    records = read_records(tmp_path / "ray/runs/test/metrics.jsonl")
    assert [record["skipped_steps"] for record in records] == [0.0, 1.0, 1.0]


def test_an_infinite_gradient_of_a_finite_loss(synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_backend, "mae_worker", _faulty("MAEWorker"))
    config = tiny_config(
        f"data.manifest={synthetic.train}", f"data.held_out_manifest={synthetic.held_out}",
        f"run.output_dir={tmp_path}", "tracking.mlflow=false", "masking.system=tube", *TWO,
    )  # fmt: skip
    wanted = rf"^step {BAD_STEP + 1}, Train worker 1: the autoencoder's gradient .*\(loss 1\."
    with pytest.raises(NonFiniteError, match=wanted) as caught:
        pretrain(config, must_resume=False)
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
        _assert_left_out(_weights(tmp_path, ("policy", "sampler")), step)
        records = read_records(tmp_path / "runs/test/metrics.jsonl")
        assert [record["ppo/skipped_updates"] for record in records] == [0.0, 1.0, 1.0]
        return
    wanted = f"^step {step}, PPO learner {rank}: PPO's gradient or loss is not finite"
    with pytest.raises(NonFiniteError, match=wanted) as caught:
        pretrain(config, must_resume=False)
    assert flat.path in str(caught.value)


def test_fine_tuning_on_two_workers(synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_ray, "classifier_worker", _faulty("ClassifierWorker"))
    config = finetune_config(
        f"data.manifest={synthetic.train}", f"data.test_manifest={synthetic.held_out}", *PLAIN,
        "cluster.mode=local", "train.workers=2", "train.skip_nonfinite=1",
    )  # fmt: skip
    data = read_data(config)
    backend = ray_finetune_backend(config, data, tmp_path)
    found = []
    try:
        backend.start(None, Cursor(), 0)
        for step in range(3):
            backend.run_round(step, backend.next_batch(8 * step, 8), snapshot=True)
            found.append(backend.finished())
        found.append(backend.finish(3))
    finally:
        backend.close()
    reports = [report for part in found for report in part.reports]
    assert [report.figures["skipped_steps"] for report in reports] == [0.0, 1.0, 1.0]
    (fault,) = reports[BAD_STEP].skipped
    assert fault.what.startswith("step 2, Train worker 1: the classifier's gradient")
    assert len(fault.clips) == 4
    states = {state.step: state.weights for part in found for state in part.states}
    _assert_left_out([states[step] for step in (1, 2, 3)], BAD_STEP + 1)
