"""Features from Ray Data tasks against those of one process."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest
import torch
from ray.exceptions import RaySystemError

from tats_ray.actors.evaluation_tasks import _within, extract_with_ray
from tats_ray.data.manifest import read_manifest
from tats_ray.errors import ComponentFailedError, ComponentTimeoutError, StorageError
from tats_ray.evaluation.features import ExtractionPlan, extract_serially, gather
from tats_ray.models.mae import build_mae
from tats_ray.models.state import model_state
from tests.conftest import tiny_config


def _plan(synthetic, broken):
    config = tiny_config("data.broken_share=0.5", "data.block_clips=10")
    manifest = read_manifest(synthetic.train).slice(0, 10)
    paths = manifest["path"].to_pylist()
    paths[7] = str(broken)
    place = manifest.column_names.index("path")
    manifest = manifest.set_column(place, manifest.field("path"), pa.array(paths))
    weights = model_state(build_mae(config.model, config.grid, seed=3))
    return ExtractionPlan(
        config.data, config.model, config.grid, weights, 2, None, [1, 1, 1], False, manifest
    )


@pytest.mark.usefixtures("cluster")
def test_ray_extraction_equals_serial_exactly(synthetic, tmp_path):
    plan = _plan(synthetic, tmp_path / "none.mp4")
    assert plan.blocks == 2
    torch.set_num_threads(1)
    serial = gather(plan, extract_serially(plan, torch.device("cpu")))
    # One task at a time, so that no second worker process has to import torch.
    blocks = extract_with_ray(plan, cpus=5.0, gpus=0.0, wait_seconds=100.0)
    by_ray = gather(plan, blocks)
    np.testing.assert_array_equal(by_ray.features, serial.features)
    assert by_ray.missing == serial.missing == {str(tmp_path / "none.mp4"): "no such file"}
    assert np.abs(serial.features).max() > 0


def test_a_wait_without_end_ends():
    def slow():
        yield {"row": np.zeros(1)}
        time.sleep(5)

    batches = _within(slow(), seconds=0.2)
    assert next(batches)["row"].tolist() == [0]
    with pytest.raises(ComponentTimeoutError, match=r"within 0\.2 s \(cluster\.wait_seconds\)"):
        next(batches)


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        ("first\nlast", ComponentFailedError, "extracting features failed: last"),
        (
            "File a.py\nKeyError: 'odd'\n\nray.exceptions.UserCodeException: failed.\nTo change",
            ComponentFailedError,
            "extracting features failed: KeyError: 'odd'",
        ),
        (
            "File a.py\ntats_ray.errors.StorageError: a.mp4: cannot be read\n\nUDF failed.",
            StorageError,
            "a.mp4: cannot be read",
        ),
    ],
)
def test_what_a_task_failed_with_is_one_line(text, kind, wanted):
    def failing():
        raise RaySystemError(text)
        yield

    with pytest.raises(kind) as caught:
        next(_within(failing(), seconds=5))
    assert str(caught.value) == wanted


def test_other_errors_pass_and_the_end_is_an_end():
    def failing():
        raise KeyError("odd")
        yield

    with pytest.raises(KeyError):
        next(_within(failing(), seconds=5))
    assert len(list(_within(iter([{"row": np.zeros(2)}] * 3), seconds=5))) == 3
