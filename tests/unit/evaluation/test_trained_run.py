"""A trained run opened from Python: README's lines, and what they stand for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

import tats_ray
from tats_ray import MaskedAutoencoder, ModelSettings, TokenGrid, TrajectorySampler, load_run
from tats_ray.controller.pretrain import pretrain
from tats_ray.data.manifest import read_manifest
from tats_ray.errors import CheckpointError, VideoDecodeError
from tats_ray.evaluation.held_out import load_held_out
from tats_ray.evaluation.inspection import Inspector
from tats_ray.training.checkpoint import newest_checkpoint, read_state
from tests.conftest import tiny_config
from tests.runs.systems import overrides

ROOT = Path(__file__).resolve().parents[3]


def _train(synthetic, folder, *overrides):
    config = tiny_config(
        "run.name=demo", f"run.output_dir={folder / 'runs'}", f"data.manifest={synthetic.train}",
        f"data.held_out_manifest={synthetic.held_out}", "tracking.mlflow=false", "train.steps=2",
        *overrides,
    )  # fmt: skip
    pretrain(config, must_resume=False)
    return config


@pytest.fixture(scope="module")
def video(synthetic):
    return read_manifest(synthetic.held_out)["path"][0].as_py()


@pytest.fixture(scope="module")
def trained(synthetic, tmp_path_factory):
    """A folder with a tiny run of TATS in `runs/demo`, and its configuration."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, _train(synthetic, folder)


def test_the_lines_of_the_readme_print_the_visible_tokens(trained, video, monkeypatch, capsys):
    section = (ROOT / "README.md").read_text().partition("## Use a trained sampler")[2]
    lines = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    assert len(lines.splitlines()) <= 15
    folder, config = trained
    shutil.copy(video, folder / "video.mp4")
    monkeypatch.chdir(folder)
    exec(compile(lines, "README.md", "exec"), {})
    first, *printed = capsys.readouterr().out.splitlines()
    assert first == f"step 2: {config.visible} of 16 tokens stay visible"
    found = [tuple(map(int, re.findall(r"\d+", line))) for line in printed]
    assert len(set(found)) == config.visible
    assert all(t < 4 and row < 2 and column < 2 for t, row, column in found)
    flat = [4 * t + 2 * row + column for t, row, column in found]
    assert flat == load_run("runs/demo").draw_mask("video.mp4").tokens.tolist()


def test_masks_are_those_that_the_run_itself_looks_at(trained, synthetic, video):
    """The same tokens as in its pictures and its enrichment, from the weights on disk."""
    folder, config = trained
    state = read_state(newest_checkpoint(folder / "runs" / "demo"))
    clip = load_held_out(config, str(synthetic.held_out), 1)
    run = load_run(folder / "runs" / "demo")
    for draw in range(3):
        wanted = Inspector(config, state).select(clip, draw)[0][0].sort().values
        assert torch.equal(run.draw_mask(video, draw).tokens, wanted)
    tokens = run.mae.patch_embedding(run.mae.patches(clip.pixels))
    assert torch.allclose(run.sampler.log_probs(tokens).exp().sum(), torch.tensor(1.0))
    assert run.settings == config


@pytest.mark.parametrize("system", ["tube", "mgm", "adamae"])
def test_every_system_draws(synthetic, tmp_path, video, system):
    config = _train(synthetic, tmp_path, *overrides(system))
    run = load_run(newest_checkpoint(tmp_path / "runs" / "demo"))
    mask = run.draw_mask(video)
    assert mask.places.shape == (config.visible, 3)
    assert len(set(mask.tokens.tolist())) == config.visible
    assert (run.sampler is None) == (system != "adamae")
    if system == "tube":  # the same places in every slice
        assert len({tuple(place[1:]) for place in mask.places.tolist()}) == config.visible // 4


def test_what_cannot_be_opened_is_named(trained, tmp_path):
    with pytest.raises(CheckpointError, match="contains no complete checkpoint"):
        load_run(tmp_path)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(VideoDecodeError, match=r"no\.mp4"):
        load_run(trained[0] / "runs" / "demo").draw_mask(tmp_path / "no.mp4")


def test_models_are_built_in_one_line():
    grid = TokenGrid(4, 2, 2)
    mae = MaskedAutoencoder(ModelSettings(size="tiny"), grid)
    patches = mae.patches(torch.rand(1, 3, 8, 32, 32))
    visible, targets = torch.tensor([[0, 5]]), torch.tensor([[1, 2, 3]])
    assert mae(patches, visible, targets).error.shape == (1, 3)
    sampler = TrajectorySampler(192, grid, width=16, heads=2)
    assert sampler.log_probs(mae.patch_embedding(patches)).shape == (1, 16)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        tats_ray.Nothing  # noqa: B018
