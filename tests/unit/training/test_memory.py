"""Steps that need less memory compute the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tats_ray.errors import ConfigError
from tats_ray.models.classifier import VideoClassifier
from tats_ray.models.transformer import set_recompute
from tats_ray.training.mae_trainer import MAETrainer
from tats_ray.training.policy import build_first_policy
from tats_ray.training.trainer import Masks
from tests.conftest import random_clips, tiny_config

CPU = torch.device("cpu")
OWN = ["rl.rewards=training", "masking.sampler.reads=pixels"]


def _after(steps, *overrides, masks=None):
    """The trainer behind some steps, and the losses of these."""
    trainer = MAETrainer(tiny_config(*overrides), CPU)
    for step in range(steps):
        clips = random_clips(trainer.config, 8, first=8 * step, seed=step)
        trainer.train_step(clips, masks)
    return trainer, [report.metrics["loss"] for report in trainer.reports()]


@pytest.mark.parametrize(
    "overrides",
    [["masking.system=random"], ["masking.system=adamae", "masking.heads=2", "masking.dropout=0"]],
    ids=["random", "adamae"],
)
def test_parts_of_a_batch_give_the_gradient_of_the_whole(overrides):
    """Within rounding: AdamW turns a gradient of rounding errors into a step of its rate."""
    whole, losses = _after(3, *overrides)
    parts, again = _after(3, *overrides, "train.accumulate=4")
    assert again == pytest.approx(losses, rel=1e-5)
    wanted, got = whole.state().files["mae"], parts.state().files["mae"]
    assert all(np.allclose(got[name], value, rtol=0, atol=2e-5) for name, value in wanted.items())
    gradients = [(a.grad, b.grad) for a, b in zip(whole.parts.parameters(),
                 parts.parts.parameters(), strict=True) if a.grad is not None]  # fmt: skip
    assert all(torch.allclose(a, b, rtol=1e-3, atol=2e-5) for a, b in gradients)


def test_parts_of_a_batch_draw_and_score_what_the_whole_does():
    sampler = build_first_policy(tiny_config(*OWN))
    rollouts = []
    for accumulate in (1, 2):
        trainer = MAETrainer(tiny_config(*OWN, f"train.accumulate={accumulate}"), CPU)
        rollouts.append(
            trainer.train_step(random_clips(trainer.config, 8), Masks(None, sampler, 0))
        )
    one, two = rollouts
    for name in ("visible", "targets", "old_log_probs", "view"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert torch.allclose(one.error, two.error, atol=1e-6)


def test_rollouts_are_shared_out_over_the_parts():
    """The first three clips were rolled out; the parts have two each."""
    config = tiny_config("train.accumulate=4", "masking.sampler.reads=pixels")
    sampler = build_first_policy(config)
    visible = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    masks = Masks(visible, sampler, 0)
    trainer, seen = MAETrainer(config, CPU), []
    trainer.model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    clips = random_clips(config, 8)
    trainer.train_step(clips, masks)
    assert [len(part) for part in seen] == [2, 2, 2, 2]
    assert torch.equal(torch.cat(seen), MAETrainer(config, CPU).visible(clips, masks))


def test_what_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"train\.accumulate 3 does not divide the 8 clips"):
        tiny_config("train.accumulate=3")


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_computing_again_changes_nothing(attention):
    overrides = ["masking.system=tube", f"model.decoder.attention={attention}"]
    kept, losses = _after(3, *overrides)
    again, same = _after(3, *overrides, "train.recompute=true")
    assert losses == same
    wanted, got = kept.state().files["mae"], again.state().files["mae"]
    assert all(np.array_equal(got[name], value) for name, value in wanted.items())


def test_computing_again_drops_the_same_paths():
    config = tiny_config("model.depth=4")
    model = VideoClassifier(config.model, config.grid, 3, drop_path=0.5)
    pixels = torch.rand(6, 3, 8, 32, 32)
    gradients = []
    for recompute in (False, True):
        set_recompute(model, recompute)
        torch.manual_seed(0)
        model.zero_grad()
        model(pixels).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_computing_again_keeps_less():
    def kept(*overrides):
        trainer, sizes = MAETrainer(tiny_config("masking.system=tube", *overrides), CPU), {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            trainer.train_step(random_clips(trainer.config, 8))
        return sum(sizes.values())

    deep = ["model.depth=8", "model.width=96", "model.heads=3"]
    assert kept(*deep, "train.recompute=true") < 0.7 * kept(*deep)
