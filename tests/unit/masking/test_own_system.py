"""Masking systems that are no part of the package: found, refused, drawn from, and built."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tats_ray.config import config_from_dict, load_config
from tats_ray.config.masking import MaskingSettings, RolloutSettings
from tats_ray.errors import ConfigError
from tats_ray.models.samplers import PolicyOutput
from tats_ray.training.mae_trainer import MAETrainer
from tats_ray.training.pretraining_model import build_policy
from tats_ray.training.trainer import Masks
from tests.conftest import random_clips, tiny_config

HERE = __name__
CPU = torch.device("cpu")
BOARD = ["masking.system=examples.checkerboard:Checkerboard", "data.size=64", "masking.ratio=0.75"]


def _colours(visible, config, field):
    """Which colour each visible token lies on, one row per slice."""
    slices = visible.view(-1, config.grid.time, config.visible // config.grid.time)
    place = slices % config.grid.per_slice
    row, column = place // config.grid.columns, place % config.grid.columns
    return (row // field + column // field) % 2


@pytest.mark.parametrize("field", [1, 2])
def test_the_checkerboard_shows_one_colour_of_each_slice(field):
    config = tiny_config(*BOARD, f"masking.field={field}")
    visible = MAETrainer(config, CPU).visible(random_clips(config, 5), None)
    assert torch.equal(
        _colours(visible, config, field),
        (torch.arange(config.grid.time) % 2)[:, None].expand(5, -1, 4),
    )
    assert all(len(set(row)) == config.visible for row in visible.tolist())
    assert len({tuple(sorted(row)) for row in visible.tolist()}) > 1, "it draws"


def test_the_autoencoder_is_trained_on_the_tokens_that_the_system_drew():
    config = tiny_config(*BOARD)
    trainer, clips, seen = MAETrainer(config, CPU), random_clips(config, 8), []
    trainer.parts.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    trainer.train_step(clips)
    assert torch.equal(seen[0], trainer.visible(clips, None))
    assert torch.equal(_colours(seen[0], config, 1)[:, 1], torch.ones(8, 4, dtype=torch.int64))


def test_its_own_settings_are_validated_like_any_other():
    for overrides, message in [
        (["masking.field=0"], "masking.field: input should be greater"),
        (["masking.feild=1"], r"masking.feild: unknown key; did you mean masking.field\?"),
        (["masking.rule=box"], "masking.rule: unknown key; known here: system, ratio, field"),
        (["masking.ratio=0.2"], "masking.ratio: one colour has fewer fields"),
    ]:
        with pytest.raises(ConfigError, match=f"^{message}"):
            tiny_config(*BOARD, *overrides)
    config = tiny_config(*BOARD, "masking.field=2")
    assert config_from_dict(config.model_dump()) == config
    assert config.model_dump()["masking"]["field"] == 2


def test_a_module_in_the_working_directory_is_found(tmp_path):
    """Started as a script, whose own folder is where Python looks, not the working directory."""
    (tmp_path / "mine.py").write_text("from tats_ray.masking.tube import Tube as Mine\n")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "from tats_ray.config import load_config\n"
        "print(load_config(None, ['run.name=x', 'masking.system=mine:Mine']).visible)\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("160\n", "")


class Whole:
    """A system with nothing wrong; those below each spoil one thing."""

    Settings = MaskingSettings
    reads = "nothing"
    trained_by = "nothing"

    def __init__(self, settings, grid):
        self.tokens = grid.tokens

    def count_visible(self):
        return self.tokens // 4

    def select(self, noise, view):
        return noise.topk(self.tokens // 4).indices


class Blind(Whole):
    reads = "sounds"


class Deaf(Whole):
    trained_by = None


class Unset(Whole):
    Settings = dict


class Unbuilt(Whole):
    def __init__(self):
        pass


class Uncounted(Whole):
    count_visible = 4


class Unasked(Whole):
    def select(self, noise):
        return noise


class Untrained(Whole):
    reads, trained_by = "tokens", "rollouts"


class Undecided(Untrained):
    Settings = RolloutSettings


class Unseeing(Whole):
    trained_by = "step"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Blind", "needs `reads`, one of nothing, tokens, pixels, frames, field, tracks"),
        ("Deaf", "needs `trained_by`, one of nothing, rollouts, step"),
        ("Unset", "needs `Settings`, a subclass of tats_ray.config.masking.MaskingSettings"),
        ("Unbuilt", r"needs `__init__\(self, settings, grid\)`"),
        ("Uncounted", r"needs `count_visible\(self\)`"),
        ("Unasked", r"needs `select\(self, noise, view\)`"),
        ("Untrained", "needs `Settings`, a subclass of tats_ray.config.masking.RolloutSettings"),
        ("Undecided", r"needs `build_sampler\(self, token_width, critic\)`"),
        ("Unseeing", "must read tokens"),
        ("CPU", "is not a class"),
    ],
)
def test_a_class_with_another_interface_is_refused_in_one_line(name, message):
    assert load_config(None, ["run.name=x", f"masking.system={HERE}:Whole"]).visible == 392
    with pytest.raises(ConfigError, match=f"^masking.system: {HERE}:{name} {message}") as caught:
        load_config(None, ["run.name=x", f"masking.system={HERE}:{name}"])
    assert "\n" not in str(caught.value)


class Linear(torch.nn.Module):
    """The least that rollouts need of a sampler."""

    def __init__(self, width):
        super().__init__()
        self.head = torch.nn.Linear(width, 1)

    def log_probs(self, tokens):
        return self.head(tokens.detach()).squeeze(-1).log_softmax(dim=1)

    def forward(self, tokens):
        return PolicyOutput(self.log_probs(tokens), None)


class Taught(Whole):
    Settings = RolloutSettings
    reads, trained_by = "tokens", "rollouts"

    def build_sampler(self, token_width, critic):
        assert not critic, "nothing is subtracted"
        return Linear(token_width)


def test_rollouts_train_the_sampler_of_a_system_of_ones_own():
    config = tiny_config(
        f"masking.system={HERE}:Taught", "masking.warmup_steps=3", "rl.baseline=none"
    )
    assert config.learns_by_rollouts
    assert (config.sampler_warmup_steps, config.rollout_clips) == (3, 8)
    policy, again = build_policy(config), build_policy(config)
    assert isinstance(policy, Linear)
    assert torch.equal(policy.head.weight, again.head.weight), "seeded"
    trainer, clips = MAETrainer(config, CPU), random_clips(config, 4)
    masks = Masks(torch.empty(0, config.visible, dtype=torch.int64), policy, 0)
    assert not torch.equal(trainer.visible(clips, masks), trainer.visible(clips, None))
