"""Every system pre-trains end to end, on the synthetic set and on real video, and is resumable."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tats_ray.config import Config
from tats_ray.controller.pretrain import pretrain
from tats_ray.errors import TooManyBrokenVideosError
from tats_ray.training.checkpoint import checkpoints, read_state
from tests.conftest import tiny_config
from tests.runs.systems import SYSTEMS, TENNIS, overrides, quick_only, tennis_manifest


def _config(system: str, output, manifest, held_out, *more: str) -> Config:
    return tiny_config(
        f"run.output_dir={output}", f"data.manifest={manifest}", "tracking.mlflow=false",
        f"data.held_out_manifest={held_out}", *overrides(system), *more,
    )  # fmt: skip


def _final_state(output):
    return read_state(checkpoints(output / "test" / "checkpoints")[-1])


@pytest.mark.parametrize("system", quick_only("tats", "adamae"))
def test_a_run_ends_and_ends_alike_after_a_crash(system, synthetic, tmp_path):
    config = _config(
        system, tmp_path, synthetic.train, synthetic.held_out, "train.steps=6",
        "checkpoint.interval=3",
    )  # fmt: skip
    summary = pretrain(config, must_resume=False)
    assert summary["steps"] == 6
    assert np.isfinite(summary["loss_last"])
    assert summary["motion_enrichment"] > 0
    assert list((tmp_path / "test/pictures").glob("*.png"))
    wanted = _final_state(tmp_path)

    # As a crash behind step 3 leaves it.
    shutil.rmtree(tmp_path / "test/checkpoints/step_00000006")
    (tmp_path / "test/summary.json").unlink()
    assert pretrain(config, must_resume=True)["resumed_from"] == 3
    got = _final_state(tmp_path)
    for name in ("mae", "auxiliary", "mae_optimizer"):
        one, other = (state.trainer.files.get(name, {}) for state in (wanted, got))
        assert one.keys() == other.keys()
        assert all(np.array_equal(value, other[key]) for key, value in one.items()), name


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_real_video(system, shared_data, tmp_path):
    manifest = tennis_manifest(shared_data, tmp_path)
    config = _config(
        system, tmp_path, manifest, manifest, "train.steps=5", "tracking.log_interval=1", *TENNIS
    )
    summary = pretrain(config, must_resume=False)
    assert summary["steps"] == 5
    assert summary["videos_quarantined"] == 0
    assert np.isfinite(summary["loss_last"])
    assert list((tmp_path / "test/pictures").glob("*.png"))


def test_a_prior_that_cannot_be_had_ends_the_run_with_its_name(synthetic, tmp_path):
    """A cache that was never made: every clip fails, none is masked in another way."""
    (tmp_path / "cache").mkdir()
    config = _config(
        "mgm", tmp_path, synthetic.train, synthetic.held_out, f"data.motion.cache={tmp_path}/cache"
    )
    with pytest.raises(Exception, match=r"\.mp4: .*tats-ray prepare") as caught:
        pretrain(config, must_resume=False)
    assert isinstance(caught.value, TooManyBrokenVideosError) or "motion" in str(caught.value)
