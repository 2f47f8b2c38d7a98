"""Mixed precision and devices."""

from __future__ import annotations

import torch


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 autocast where `precision` asks for it; `auto` means on a GPU that has it in hardware:
    older ones only emulate bf16."""
    enabled = precision == "bf16" or (
        precision == "auto"
        and device.type == "cuda"
        and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def default_device() -> torch.device:
    """The process's GPU where it sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
