"""Erasing and mixing: the same for all frames, tied to clips, true to their targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

from tats_ray.data.clips import Clips
from tats_ray.training.finetune_inputs import erase, mix, training_pixels
from tests.finetuning import PLAIN, finetune_config

CPU = torch.device("cpu")


def _even(count: int) -> torch.Tensor:
    """Clips of one grey level each, [count, 3, 8, 32, 32]."""
    levels = torch.linspace(0.1, 0.9, count).view(-1, 1, 1, 1, 1)
    return levels.expand(-1, 3, 8, 32, 32).clone()


def test_erasing_is_one_box_in_all_frames_with_new_noise_in_each():
    pixels = _even(40)
    erased = erase(pixels, 0.5, seed=0, first=0)
    changed = (erased - pixels).abs() > 1e-5
    hit = changed.flatten(1).any(dim=1)
    assert 10 < hit.sum() < 30
    for clip, mask in zip(erased[hit], changed[hit], strict=True):
        box = mask.any(dim=0).any(dim=0)
        rows, columns = torch.nonzero(box.any(dim=1)), torch.nonzero(box.any(dim=0))
        assert box.sum() == len(rows) * len(columns), "a rectangle"
        assert mask[:, :, box].float().mean(dim=-1).min() > 0.9, "in every frame and colour"
        noise = clip[:, :, box]
        assert not torch.equal(noise[:, 0], noise[:, 1])


def test_erasing_belongs_to_the_clip():
    pixels = _even(8)
    whole = erase(pixels, 0.8, seed=1, first=100)
    parts = [erase(pixels[:3], 0.8, seed=1, first=100), erase(pixels[3:], 0.8, seed=1, first=103)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, erase(pixels, 0.8, seed=1, first=200))


@pytest.mark.parametrize("kind", ["mixup=0.8", "cutmix=1.0"])
def test_targets_say_what_is_in_the_clip(kind):
    """With a grey level per clip, the mean level must be the targets' mean of the levels."""
    off = {"mixup=0.8": "cutmix=0.0", "cutmix=1.0": "mixup=0.0"}[kind]
    config = finetune_config(
        f"data.augment.{kind}", f"data.augment.{off}", "classifier.label_smoothing=0.0"
    )
    pixels, labels = _even(16), torch.arange(16)
    levels = pixels[:, 0, 0, 0, 0].clone()
    mixed, targets = mix(config, pixels, labels, 16, first=40)
    assert torch.allclose(targets.sum(dim=1), torch.ones(16))
    assert torch.allclose(mixed.mean(dim=(1, 2, 3, 4)), targets @ levels, atol=1e-5)
    shares = targets[torch.arange(16), labels].view(4, 4)
    assert torch.allclose(shares, shares[:, :1].expand(-1, 4)), "one draw per group of 4"
    assert len({round(float(share), 4) for share in shares[:, 0]}) == 4, "another for each group"
    assert torch.equal(mixed, mixed[:, :1, :1].expand_as(mixed)), "the same in all frames"


def test_smoothed_targets_sum_to_one_and_leave_no_class_out():
    config = finetune_config()
    _, targets = mix(config, _even(8), torch.arange(8) % 5, 5, first=0)
    assert torch.allclose(targets.sum(dim=1), torch.ones(8))
    assert targets.min() == pytest.approx(0.1 / 5)


def test_mixing_depends_on_groups_and_not_on_the_split():
    config = finetune_config()
    whole = mix(config, _even(8), torch.arange(8), 8, first=16)
    halves = [
        mix(config, _even(8)[part], torch.arange(8)[part], 8, first=16 + part.start)
        for part in (slice(0, 4), slice(4, 8))
    ]
    for index in (0, 1):
        assert torch.equal(whole[index], torch.cat([half[index] for half in halves]))


def test_without_mixing_the_loss_is_label_smoothing():
    config = finetune_config(*PLAIN, "classifier.label_smoothing=0.1")
    labels, logits = torch.tensor([0, 2, 1]), torch.randn(3, 4)
    _, targets = mix(config, _even(3), labels, 4, first=0)
    wanted = LabelSmoothingCrossEntropy(0.1)(logits, labels)
    assert torch.allclose(SoftTargetCrossEntropy()(logits, targets), wanted)


def test_pixels_are_the_same_after_a_restart_and_new_for_each_clip():
    config = finetune_config()
    frames = np.random.default_rng(0).integers(0, 255, (1, 8, 32, 32, 3), dtype=np.uint8)
    clips = Clips(np.repeat(frames, 4, axis=0), np.ones(4), np.arange(4), first=8)
    pixels = training_pixels(config, clips, CPU)
    assert torch.equal(pixels, training_pixels(config, clips, CPU))
    assert torch.equal(pixels[2:], training_pixels(config, clips.rows(2, 4), CPU))
    assert not torch.allclose(pixels[0], pixels[1]), "repeats are cropped anew"
