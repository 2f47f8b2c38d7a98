"""A learned sampler on its own draws the masks of its run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from tats_ray import load_run, load_sampler
from tats_ray.data.manifest import read_manifest
from tats_ray.errors import CheckpointError
from tats_ray.evaluation.exported_sampler import decode_middle
from tests.exports import exported, pretraining_run
from tests.faults.damage import poison, reshape, truncate

ROOT = Path(__file__).resolve().parents[3]
SYSTEMS = {
    "tokens": [],
    "pixels": ["masking.sampler.reads=pixels"],
    "shared": ["masking.sampler.shared_trunk=true"],
}


@pytest.fixture(scope="module")
def video(synthetic):
    return read_manifest(synthetic.held_out)["path"][0].as_py()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("form", ["huggingface", "safetensors"])
def test_it_draws_what_its_run_draws(tmp_path, video, system, form):
    config, _ = pretraining_run(tmp_path / "run", *SYSTEMS[system])
    run = load_run(tmp_path / "run")
    sampler = load_sampler(exported(tmp_path / "run", tmp_path / "out", form))
    drawn = [sampler(video, draw).tokens for draw in range(3)]
    for draw, tokens in enumerate(drawn):
        assert torch.equal(tokens, run.draw_mask(video, draw).tokens)
    assert len({tuple(tokens.tolist()) for tokens in drawn}) > 1
    clip = decode_middle(config, video).pixels[0]
    assert torch.equal(sampler(clip).tokens, drawn[0]), "a clip in memory is the same"
    assert not any("critic" in name for name, _ in sampler.sampler.named_parameters())


def test_the_lines_of_the_readme_choose_tokens(tmp_path, video, monkeypatch, capsys):
    section = (ROOT / "README.md").read_text().partition("## Use a trained sampler")[2]
    lines = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[1]
    assert len(lines.splitlines()) <= 15
    pretraining_run(tmp_path / "run")
    exported(tmp_path / "run", tmp_path / "exported", "huggingface")
    shutil.copy(video, tmp_path / "video.mp4")
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("4 of 16 tokens: [")


def test_what_has_no_sampler_is_named(tmp_path):
    pretraining_run(tmp_path / "run", "masking.system=tube")
    folder = exported(tmp_path / "run", tmp_path / "out", "safetensors")
    for place in (folder, tmp_path / "run", tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=r"contains no sampler\.safetensors; export"):
            load_sampler(place)


@pytest.mark.parametrize("damage", [truncate, poison, reshape])
def test_a_damaged_sampler_is_named(tmp_path, damage):
    pretraining_run(tmp_path / "run")
    folder = exported(tmp_path / "run", tmp_path / "out", "safetensors")
    damage(folder / "sampler.safetensors")
    with pytest.raises(CheckpointError, match=r"sampler\.safetensors|weight '"):
        load_sampler(folder)
