"""Schedule, decay groups, and the guard against non-finite updates."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tats_ray.config.train import TrainSettings
from tats_ray.models.mae import build_mae
from tats_ray.models.numerics import spread
from tats_ray.models.optimizer import (
    GuardedOptimizer,
    build_adamw,
    learning_rate,
    parameter_groups,
)
from tests.conftest import tiny_config


def test_schedule_warms_up_linearly_and_falls_as_a_half_cosine():
    section = TrainSettings(steps=110, warmup_steps=10, batch_size=512, base_lr=1e-3, min_lr=1e-4)
    rates = [learning_rate(section.schedule, step) for step in range(110)]
    assert rates[0] == pytest.approx(2e-3 / 10)
    assert rates[9] == pytest.approx(2e-3)
    assert rates[10] == pytest.approx(2e-3)
    assert rates[60] == pytest.approx((2e-3 + 2e-4) / 2)
    wanted = 2e-4 + 0.9 * 2e-3 * 0.5 * (1 + math.cos(math.pi * 99 / 100))
    assert rates[109] == pytest.approx(wanted)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_every_weight_is_in_one_group_and_only_matrices_decay():
    config = tiny_config()
    mae = build_mae(config.model, config.grid, 0)
    decayed, exempt = parameter_groups(mae, 0.05)
    assert len(decayed["params"]) + len(exempt["params"]) == len(list(mae.parameters()))
    names = {id(parameter): name for name, parameter in mae.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim == 2 for p in decayed["params"])
    assert "decoder.mask_token" in {names[id(p)] for p in exempt["params"]}
    assert exempt["weight_decay"] == 0


@pytest.fixture
def guarded():
    model = nn.Linear(3, 2)
    return model, GuardedOptimizer(build_adamw(model, 0.1, 0.0, (0.9, 0.95)), gradient_clip=1.0)


def _step(model, optimizer, scale):
    optimizer.zero_grad()
    (model(torch.ones(1, 3)) * scale).sum().backward()
    return optimizer.step(lr=0.1)


def test_a_step_equals_plain_adamw(guarded):
    model, optimizer = guarded
    twin = nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    plain = torch.optim.AdamW(twin.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)
    for scale in (1.0, -3.0, 0.5):
        _step(model, optimizer, scale)
        plain.zero_grad()
        (twin(torch.ones(1, 3)) * scale).sum().backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        plain.step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_nothing_changes_from_the_first_bad_gradient_on(guarded, scale):
    model, optimizer = guarded
    _step(model, optimizer, 1.0)
    assert optimizer.own_fault == 0
    before = [parameter.clone() for parameter in model.parameters()]
    _step(model, optimizer, scale)
    assert optimizer.own_fault == 1
    _step(model, optimizer, 1.0)  # a good one behind it
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_bad_steps_within_the_limit_are_left_out_and_the_others_count():
    """As if the bad steps had never been, moments and their step count included; the count goes
    on after a resume."""
    model, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    optimizer, clean = (
        GuardedOptimizer(build_adamw(each, 0.1, 0.0, (0.9, 0.95)), 1.0, limit)
        for each, limit in ((model, 2), (twin, 0))
    )
    for scale in (1.0, math.inf, -3.0, math.nan):
        _step(model, optimizer, scale)
        if math.isfinite(scale):
            _step(twin, clean, scale)
    state, wanted = optimizer.state(model), clean.state(twin)
    assert state.pop("guard/skipped") == 2
    assert state.keys() == wanted.keys()
    assert all(np.array_equal(value, wanted[name]) for name, value in state.items())
    resumed = GuardedOptimizer(build_adamw(model, 0.1, 0.0, (0.9, 0.95)), 1.0, 2)
    resumed.load(model, optimizer.state(model))
    assert resumed.skipped == 2
    before = model.weight.clone()
    _step(model, resumed, math.inf)  # one too many: nothing changes from here on
    _step(model, resumed, 1.0)
    assert torch.equal(model.weight, before)


def test_a_loss_that_overflows_spoils_its_gradient_however_finite():
    weight = torch.tensor([1e30], requires_grad=True)
    loss = weight.square().sum()  # infinite, with a gradient of 2e30
    assert torch.isfinite(torch.autograd.grad(loss, weight, retain_graph=True)[0]).all()
    spread(loss).backward()
    assert torch.isnan(weight.grad).all()
    plain = torch.tensor([0.3, -7.0], requires_grad=True)
    spread(plain.square().sum()).backward()
    assert torch.equal(plain.grad, 2 * plain.detach())
