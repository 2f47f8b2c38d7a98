"""bf16 is chosen where the GPU computes in it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tats_ray.models.numerics import autocast

CUDA = torch.device("cuda")


def _give(monkeypatch, generation):
    """A GPU of this generation; before 8 (Ampere) bf16 tensors work, by emulation."""
    properties = SimpleNamespace(major=generation)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)


def _is_bf16(precision, device):
    with autocast(precision, device):
        return torch.is_autocast_enabled(device.type)


@pytest.mark.parametrize(("generation", "wanted"), [(7, False), (8, True), (9, True)])
def test_auto_leaves_emulation_out(monkeypatch, generation, wanted):
    _give(monkeypatch, generation)
    assert _is_bf16("auto", CUDA) == wanted
    assert _is_bf16("bf16", CUDA)
    assert not _is_bf16("fp32", CUDA)


def test_auto_is_fp32_on_a_cpu():
    cpu = torch.device("cpu")
    assert not _is_bf16("auto", cpu)
    assert _is_bf16("bf16", cpu)
