"""Fine-tuning and testing on a cluster against the same in one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tats_ray.actors.evaluation_tasks import score_videos_on_ray
from tats_ray.controller.finetune import read_data
from tats_ray.controller.in_process import in_process
from tats_ray.data.manifest import read_manifest
from tats_ray.evaluation.multi_view import TestVideo, VideoScorer, score_videos
from tats_ray.models.state import model_state
from tats_ray.training.classifier import build_classifier
from tests.finetuning import finetune_config
from tests.iterations import RESOURCES, drive, finetuning, ray_executor, starting_point

pytestmark = pytest.mark.usefixtures("cluster")

STEPS = 5


def _config(synthetic, *overrides):
    return finetune_config(
        f"data.manifest={synthetic.train}", f"data.test_manifest={synthetic.held_out}", *overrides
    )


def _serial(config, data, folder, steps=STEPS):
    return drive(in_process(finetuning(config, data), starting_point(folder)), steps)


@pytest.mark.parametrize(
    ("workers", "drop_path", "tolerance"),
    # Two workers sum gradients in another order, and draw other paths.
    [(1, 0.1, 0.0), (2, 0.0, 2e-5)],
)
@pytest.mark.slow
def test_ray_equals_serial_and_continues_from_its_state(
    synthetic, tmp_path, workers, drop_path, tolerance
):
    config = _config(
        synthetic, "cluster.mode=local", f"train.workers={workers}",
        f"classifier.drop_path={drop_path}",
    )  # fmt: skip
    data = read_data(config)
    reports, wanted, _ = _serial(config, data, tmp_path)
    _, begun, cursor = _serial(config, data, tmp_path, steps=1)
    start = starting_point(tmp_path, begun[1], cursor, first=1)
    got_reports, got, _ = drive(ray_executor(finetuning(config, data), start), STEPS, first=1)
    assert sorted(got) == sorted(wanted) == [2, STEPS]
    assert list(got_reports) == list(reports)[1:]
    for step, metrics in got_reports.items():
        assert metrics["loss"] == pytest.approx(reports[step]["loss"], abs=1e-6)
    for name, value in wanted[STEPS].trainer.files["classifier"].items():
        assert np.allclose(
            value, got[STEPS].trainer.files["classifier"][name], rtol=0, atol=tolerance
        ), name


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_one_process_score_alike(synthetic, tmp_path, workers):
    """Bit for bit, each video once, in the manifest's order; the broken one is missing."""
    config = _config(synthetic, f"train.workers={workers}")
    rows = [
        *read_manifest(synthetic.held_out).to_pylist(),
        *read_manifest(synthetic.train).to_pylist(),
    ]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    rows[4] = {**rows[4], "path": str(broken)}
    videos = [TestVideo(number, row) for number, row in enumerate(rows[:9])]
    model = build_classifier(config, 6)
    with torch.no_grad():
        model.head.weight.normal_()
    weights = model_state(model)
    scorer = VideoScorer(config, 6, weights, torch.device("cpu"))
    wanted = score_videos(videos, scorer)
    assert wanted[4].probabilities is None
    assert wanted[4].reason
    got = score_videos_on_ray(config, videos, 6, weights, RESOURCES)
    assert [score.number for score in got] == list(range(9))
    assert [score.reason for score in got] == [score.reason for score in wanted]
    for one, two in zip(wanted, got, strict=True):
        assert np.array_equal(one.probabilities, two.probabilities), one.number
