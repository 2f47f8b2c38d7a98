"""Whole videos as runs see them, and masks over the steps of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tats_ray.cli.visualize import visualize_main
from tats_ray.controller.pretrain import pretrain
from tats_ray.data.manifest import read_manifest
from tats_ray.data.sampling import frame_indices, successive_windows
from tats_ray.errors import ConfigError, RunDirectoryError
from tats_ray.evaluation.held_out import Enrichment
from tats_ray.evaluation.inspection import Inspection
from tats_ray.evaluation.trained_run import load_run
from tats_ray.tracking.mask_history import GIF, NO_MASKS, read_history, save_mask_video
from tats_ray.tracking.visualization import check_runs, visualize
from tests.conftest import tiny_config


@pytest.mark.parametrize("total", [1, 7, 15, 16, 17, 64, 75, 131])
@pytest.mark.parametrize(("frames", "stride"), [(1, 1), (4, 1), (4, 3), (16, 4)])
def test_windows_show_every_frame_once(total, frames, stride):
    windows = successive_windows(total, frames, stride)
    shown = []
    for window in windows:
        indices = frame_indices(total, frames, stride, window.start)
        assert indices[window.shown.start : window.shown.stop].tolist() == list(window.numbers)
        shown += window.numbers
    assert shown == list(range(0, total, stride))
    assert len(windows) == -(-len(shown) // frames)


@pytest.fixture(scope="module")
def runs(synthetic, tmp_path_factory):
    """A run of TATS and one of random masks on larger frames; each two steps long."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in (
        ("tats", ["tracking.picture_interval=1"]),
        ("random", ["masking.system=random", "data.size=48", "data.stored_height=48"]),
    ):
        pretrain(
            tiny_config(
                f"run.name={name}", f"run.output_dir={folder}", f"data.manifest={synthetic.train}",
                f"data.held_out_manifest={synthetic.held_out}", "tracking.mlflow=false",
                "train.steps=2", *more,
            ),
            must_resume=False,
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def video(synthetic):
    """12 frames, of which a clip has 8."""
    return read_manifest(synthetic.held_out)["path"][0].as_py()


def _frames(file):
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, [f.to_ndarray(format="rgb24") for f in container.decode(stream)]


def test_a_video_is_shown_by_several_runs(runs, video, tmp_path, capsys):
    words = [video, "--output", str(tmp_path / "out")]
    for name in ("tats", "random"):
        words += ["--run", str(runs / name)]
    assert visualize_main(words) == 0
    files = [tmp_path / "out" / line.rpartition("/")[2] for line in capsys.readouterr().out.split()]
    assert [file.suffix for file in files] == [".mp4", ".gif", ".png"]
    rate, frames = _frames(files[0])
    with av.open(video) as container:
        assert rate == container.streams.video[0].average_rate
    assert len(frames) == 12
    gif = Image.open(files[1])
    assert gif.n_frames == 12
    assert gif.size == frames[0].shape[1::-1]
    assert gif.info["duration"] == pytest.approx(float(1000 / rate), abs=10)
    # 5 kinds of 144 pixels side by side, 2 lines below each other; nothing else is left over.
    assert frames[0].shape[1] >= 5 * 144 and frames[0].shape[0] >= 2 * 144
    # Frames once; map, visible, reconstruction and error of tats, three of them of random masks.
    assert Image.open(files[2]).height >= 8 * 144
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        file.name for file in files
    )


def test_a_video_in_the_output_folder_stays_as_it_is(runs, video, tmp_path):
    mine = tmp_path / "mine.mp4"
    shutil.copy(video, mine)
    before = mine.read_bytes()
    assert visualize_main([str(mine), "--run", str(runs / "tats"), "--output", str(tmp_path)]) == 0
    assert mine.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine.mp4", "mine_masks.gif", "mine_masks.mp4", "mine_masks.png",
    ]  # fmt: skip


def test_every_window_has_a_mask_of_its_own(runs, video):
    run = load_run(runs / "random")
    first, second = run.inspect_video(video)
    assert (first.number, second.number, first.windows) == (0, 1, 2)
    assert not torch.equal(first.inspection.visible, second.inspection.visible)
    assert torch.equal(first.inspection.pixels[:, :, 4:], second.inspection.pixels[:, :, :4])
    again = next(run.inspect_video(video)).inspection
    assert torch.equal(again.visible, first.inspection.visible)


def test_runs_that_look_at_other_frames_are_shown_one_by_one(runs):
    run = load_run(runs / "tats")
    other = load_run(runs / "random")
    data = other.settings.data.model_copy(update={"stride": 2})
    other.settings = other.settings.model_copy(update={"data": data})
    with pytest.raises(ConfigError, match=r"data\.stride is 1 in run tats and 2 in run random"):
        check_runs([run, other])


@pytest.mark.parametrize("content", [None, b"", b"no video at all"])
def test_a_broken_video_is_named_and_nothing_is_written(content, runs, tmp_path, capsys):
    file = tmp_path / "broken.mp4"
    if content is not None:
        file.write_bytes(content)
    words = [str(file), "--run", str(runs / "tats"), "--output", str(tmp_path / "out")]
    assert visualize_main(words) == 1
    assert capsys.readouterr().err.startswith(f"error: {file}: ")
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_is_named(video, tmp_path, capsys):
    words = ["--run", str(tmp_path), "--output", str(tmp_path / "out")]
    assert visualize_main([video, *words]) == 1
    assert "contains no complete checkpoint" in capsys.readouterr().err
    assert visualize_main([video, video, *words]) == 2
    assert "2 videos are named" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_older_video(runs, video, tmp_path, monkeypatch):
    run = load_run(runs / "tats")
    mp4, gif, png = visualize(Path(video), [run], tmp_path)
    before = {file: file.read_bytes() for file in (mp4, gif, png)}
    monkeypatch.setattr("tats_ray.tracking.visualization.draw_sheet", None)
    with pytest.raises(TypeError):
        visualize(Path(video), [run], tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def _seen(token, enriched=True):
    return Inspection(
        pixels=torch.rand(1, 3, 8, 32, 32),
        visible=torch.tensor([[token]]),
        log_probs=torch.rand(1, 16).log_softmax(dim=1),
        speed=None,
        reconstruction=None,
        error=None,
        enrichment=(Enrichment(1.0 + token, 0.5),) if enriched else None,
    )


def test_a_resumed_run_continues_the_masks(tmp_path):
    """What a killed run has looked at behind its checkpoint is taken again, not twice."""
    file, history = tmp_path / "masks.npz", NO_MASKS
    for step in (5, 10, 15):
        history = history.after(step, _seen(step))
        history.write(file)
    read = read_history(file)
    assert read.steps.tolist() == [5, 10, 15]
    again = read.after(10, _seen(3))
    assert again.steps.tolist() == [5, 10]
    assert again.visible.tolist() == [[5], [3]]
    assert again.enrichment.tolist() == [[6.0, 0.5], [4.0, 0.5]]
    assert np.array_equal(again.log_probs[0], read.log_probs[0])
    assert len(NO_MASKS.after(5, _seen(1, enriched=False)).steps) == 1
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(RunDirectoryError, match=r"masks\.npz: cannot be read .*; delete it"):
        read_history(file)


def test_the_gif_has_a_frame_per_step_up_to_a_limit(tmp_path):
    config, seen = tiny_config(), _seen(0)
    history = NO_MASKS.after(1, seen)
    assert save_mask_video(history, seen, config, tmp_path) == []
    history = history.after(2, _seen(1)).after(3, _seen(2))
    (file,) = save_mask_video(history, seen, config, tmp_path)
    gif = Image.open(file)
    assert gif.n_frames == 3
    assert gif.width >= 4 * 128
    for step in range(4, 50):
        history = history.after(step, _seen(step % 16))
    save_mask_video(history, seen, config, tmp_path)
    assert Image.open(file).n_frames == 32


def test_a_run_leaves_the_video_of_its_masks(runs):
    assert read_history(runs / "tats" / "mask_history.npz").steps.tolist() == [1, 2]
    assert Image.open(runs / "tats" / "pictures" / GIF).n_frames == 2
    assert not (runs / "random" / "pictures" / GIF).exists()  # looked at once, at its end
