"""The masking systems behind one switch."""

from __future__ import annotations

from tats_ray.config import Config
from tats_ray.masking.random import RandomMasker
from tats_ray.masking.selection import Masker
from tats_ray.masking.tats import TATSMasker
from tats_ray.masking.tube import TubeMasker
from tats_ray.models.sampler import TrajectorySampler


def build_masker(config: Config, sampler: TrajectorySampler | None) -> Masker:
    """The masker of `masking.system`; `sampler` is the policy of a learned one."""
    if config.masking.system == "random":
        return RandomMasker(config.visible)
    if config.masking.system == "tube":
        return TubeMasker(config.grid, config.visible)
    assert sampler is not None, f"{config.masking.system} draws from a sampler"
    return TATSMasker(sampler, config.visible)
