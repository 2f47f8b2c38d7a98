"""Whatever is written: a full or read-only disk is one error with path and remedy, and what was
written before stays as it was."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tats_ray.cli.prepare import prepare_data_main
from tats_ray.config.compare import CompareSettings
from tats_ray.config.data import SyntheticSettings
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.data.clips import Cursor
from tats_ray.data.manifest import ManifestRow, read_manifest, write_manifest
from tats_ray.data.motion.cache import write_fields
from tats_ray.data.synthetic.generate import ensure_synthetic
from tats_ray.data.video_writer import write_h264
from tats_ray.errors import StorageError
from tats_ray.evaluation.comparison import Comparison, TrialResult
from tats_ray.evaluation.feature_cache import write_features
from tats_ray.evaluation.features import VideoFeatures
from tats_ray.tracking.comparison_report import write_comparison
from tats_ray.tracking.metrics_file import MetricsFile, Record, read_records
from tats_ray.training.checkpoint import (
    Progress,
    RunState,
    checkpoints,
    read_state,
    write_checkpoint,
)
from tats_ray.training.reports import TrainerState
from tests.conftest import tiny_config

VIDEO = np.random.default_rng(0).integers(0, 255, (24, 64, 64, 3), dtype=np.uint8)


def _state(step):
    rng = np.random.default_rng(step)
    weights = {"w": rng.random((100, 100))}
    return RunState(
        TrainerState(step, {"mae": weights, "mae_optimizer": {"w/step": np.ones(())}}), None
    )


def _checkpoint(folder, step=1):
    write_checkpoint(folder / "checkpoints", _state(step), Progress(step, 8, Cursor(), 0), keep=3)


def _metrics(folder):
    file = MetricsFile(folder / "metrics.jsonl", 10**9)
    try:
        for step in range(1, 2000):
            file.write(Record(step, {"loss": 1.0, "reward": 0.123456789}))
    finally:
        file.close()


def _synthetic(folder, clips=8):
    section = SyntheticSettings(clips=clips, held_out_clips=4, frames=12, size=64)
    ensure_synthetic(section, folder)


def _features(folder):
    found = VideoFeatures(np.random.default_rng(0).random((500, 64), dtype=np.float32), {})
    write_features(folder, "a" * 64, found)


def _manifest(folder):
    rows = [ManifestRow(f"/videos/{hash(i)}.mp4", None, i, 25.0, 9, 9) for i in range(1, 9000)]
    write_manifest(folder / "train.parquet", rows)


def _motion(folder):
    fields = np.random.default_rng(0).random((99, 14, 14, 2), dtype=np.float32)
    write_fields(str(folder / "motion"), str(Path(__file__)), "vectors", fields)


def _run_file(folder):
    directory = RunDirectory(tiny_config(f"run.output_dir={folder}"))
    directory.open(Path(__file__), must_exist=False)
    directory.close()


def _comparison(folder):
    section = CompareSettings.model_construct(
        arms={"random": [], "tats": []}, ratios=[0.75], seeds=[0, 1], references=["random"]
    )
    results = [
        TrialResult(arm, 0.75, seed, 12, 1.0, 0.1, {"linear": 0.5 + 0.1 * seed, "loss": 1.0}, [])
        for arm in section.arms
        for seed in section.seeds
    ]
    write_comparison(folder, section, Comparison(results))


WRITERS = [
    _checkpoint, _metrics, _synthetic, _features, _manifest, _motion, _run_file, _comparison,
]  # fmt: skip
# Small files, which a nearly full disk takes until nothing is left at all.
SMALL = (_run_file, _comparison)


def _check(error: StorageError, folder: Path, reason: str) -> None:
    message = str(error)
    assert message.startswith(str(folder)), message
    assert reason in message
    assert "choose another place" in message
    assert "\n" not in message


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_named_and_nothing_half_written_stays(disk_of, write):
    disk = disk_of(64)
    disk.fill(spare=8192)
    before = {path.name for path in disk.path.iterdir()}
    if write in SMALL:
        disk.free()
        disk.fill()
    with pytest.raises(StorageError) as caught:
        write(disk.path)
    _check(caught.value, disk.path, "No space left on device")
    left = {path.name for path in disk.path.rglob("*") if path.is_file()} - before
    assert left <= {"metrics.jsonl", ".lock"}


@pytest.mark.parametrize("write", WRITERS)
def test_a_read_only_disk_is_named(disk_of, write):
    disk = disk_of(64)
    disk.make_read_only()
    with pytest.raises(StorageError) as caught:
        write(disk.path)
    _check(caught.value, disk.path, "Read-only file system")


def test_an_old_report_of_a_comparison_survives_the_full_disk(disk_of):
    """A picture that does not fit leaves the older one whole; room for the tables alone."""
    disk = disk_of(256)
    _comparison(disk.path)
    before = {path.name: path.read_bytes() for path in disk.path.iterdir()}
    assert {"results.md", "results.csv", "accuracy_by_ratio.png"} <= set(before)
    disk.fill(spare=8192)
    with pytest.raises(StorageError, match=r"accuracy_by_ratio\.png: cannot be written"):
        _comparison(disk.path)
    (disk.path / "ballast").unlink()
    assert {path.name: path.read_bytes() for path in disk.path.iterdir()} == before


def test_many_synthetic_clips_are_written_by_processes_that_tell(disk_of):
    disk = disk_of(256)
    with pytest.raises(StorageError) as caught:
        _synthetic(disk.path, clips=40)
    _check(caught.value, disk.path, "No space left on device")
    assert not list((disk.path / "synthetic").iterdir())


def test_the_last_checkpoint_stays_and_loads(disk_of):
    disk = disk_of(400)
    _checkpoint(disk.path, 1)
    _checkpoint(disk.path, 2)
    wanted = (disk.path / "checkpoints" / "step_00000002" / "mae.safetensors").read_bytes()
    disk.fill(spare=20_000)
    with pytest.raises(StorageError):
        _checkpoint(disk.path, 3)
    with pytest.raises(StorageError):
        _checkpoint(disk.path, 2)  # the same step again, after a resume
    found = checkpoints(disk.path / "checkpoints")
    assert [path.name for path in found] == ["step_00000001", "step_00000002"]
    assert (found[-1] / "mae.safetensors").read_bytes() == wanted
    assert read_state(found[-1]).trainer.step == 2
    assert sorted(path.name for path in (disk.path / "checkpoints").iterdir()) == [
        "step_00000001", "step_00000002",
    ]  # fmt: skip
    disk.free()
    _checkpoint(disk.path, 2)
    _checkpoint(disk.path, 3)
    assert read_state(checkpoints(disk.path / "checkpoints")[-1]).trainer.step == 3


def test_records_before_the_full_disk_are_whole(disk_of):
    disk = disk_of(64)
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        _metrics(disk.path)
    records = read_records(disk.path / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    assert len(records) > 100


def test_a_limit_of_file_sizes_is_told(tmp_path):
    """A quota, as batch systems set it: the write itself fails, in Rust."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from tests.faults.test_full_disk import _checkpoint\n"
        "from tats_ray.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n    _checkpoint(Path(sys.argv[1]))\n"
        "except StorageError as error:\n    print(error)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True,
        cwd=root,
    )  # fmt: skip
    assert "cannot be written (File too large); raise the limit of file sizes" in done.stdout
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_h264(folder / f"{name}.mp4", VIDEO, fps=8)
    return folder


def test_preparing_data_stops_at_the_full_disk_and_blames_no_video(disk_of, videos, capsys):
    for option in (["--reencode"], ["--motion", "lucas_kanade", "--motion-folder"]):
        disk = disk_of(64)
        disk.fill(spare=8192)
        manifest = videos.parent / "m.parquet"
        manifest.unlink(missing_ok=True)
        code = prepare_data_main([str(videos), str(manifest), *option, str(disk.path / "out")])
        output = capsys.readouterr()
        assert code == 1
        assert "No space left on device" in output.err
        assert output.err.startswith(f"error: {disk.path}")
        assert output.err.count("\n") == 1
        assert not [path for path in (disk.path / "out").rglob("*") if path.is_file()]


def test_an_old_manifest_survives_the_full_disk(disk_of, videos, capsys):
    disk = disk_of(64)
    manifest = disk.path / "m.parquet"
    assert prepare_data_main([str(videos), str(manifest)]) == 0
    shutil.copy(videos / "a.mp4", videos / "d.mp4")
    disk.fill()
    assert prepare_data_main([str(videos), str(manifest)]) == 1
    assert f"error: {manifest}: cannot be written (No space left" in capsys.readouterr().err
    assert read_manifest(manifest).num_rows == 3


def test_features_come_back_after_the_disk_is_freed(disk_of):
    disk = disk_of(256)
    disk.fill(spare=8192)
    with pytest.raises(StorageError):
        _features(disk.path)
    disk.free()
    _features(disk.path)
    (file,) = disk.path.glob("*.safetensors")
    assert load_file(file)["features"].shape == (500, 64)
