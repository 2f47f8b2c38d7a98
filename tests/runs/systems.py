"""One small configuration per system, for the tests that run all of them."""

from __future__ import annotations

from typing import Any

import pytest

SYSTEMS = {
    "tats": ["masking.warmup_steps=2", "rl.rollout_fraction=0.5"],
    "adamae": ["masking.adamae.heads=2"],
    "mgm": [],
    "trackmae": ["model.motion_target.weight=1"],
    "tube": [],
    "random": ["data.repeats=2", "model.target.normalize=joint", "model.target.frames=4"],  # MAE-ST
    "frame": [],
}


def overrides(system: str) -> list[str]:
    """Settings of a tiny run of the system."""
    return [f"masking.system={system}", *SYSTEMS[system]]


def quick_only(*quick: str) -> list[Any]:
    """All systems as parameters, slow ones but for those named."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in quick else slow) for name in SYSTEMS]
