"""What the step benchmark counts; its times are not a matter of tests."""

from __future__ import annotations

import torch
from torch import nn

from tats_ray.benchmarks.steps import (
    REFERENCE,
    SavedActivations,
    measure_steps,
    reference_config,
)
from tests.conftest import tiny_config


def test_what_the_backward_pass_needs_is_counted_once():
    """Two layers of width 8 on 5 rows: the input of each, and the output of the first as ReLU's."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    saved = SavedActivations(model.parameters())
    with saved.hooks():
        loss = model(torch.randn(5, 8)).sum()
        assert saved.peak == 2 * 5 * 8 * 4
        loss.backward()
        del loss
        model(torch.randn(5, 8)).sum().backward()
    assert saved.peak == 2 * 5 * 8 * 4, "what the first pass kept is gone"


def test_the_reference_is_adamae_in_full():
    config = tiny_config(
        "masking.system=tube", "model.decoder.attention=cross", "train.precision=bf16",
        "model.decoder.target_fraction=0.25",
    )  # fmt: skip
    reference = reference_config(config)
    assert reference.masking.system == "adamae"
    assert reference.masking.ratio == config.masking.ratio
    assert reference.targets == reference.grid.tokens - reference.visible
    assert (reference.model.decoder.attention, reference.train.precision) == ("self", "fp32")
    assert reference.train.batch_size == config.train.batch_size


def test_costs_of_systems_beside_the_reference():
    names = ["random", "tats"]
    costs = measure_steps({name: tiny_config(f"masking.system={name}") for name in names}, 2)
    assert list(costs) == [REFERENCE, *names]
    for cost in costs.values():
        assert cost.seconds.shape == (2,) and (cost.seconds > 0).all()
        assert cost.activations > 0 and cost.flops > 0 and cost.motion_seconds == 0
        assert cost.peak_memory is None
    assert costs["random"].flops < costs["tats"].flops
    assert costs["random"].activations < costs[REFERENCE].activations
