"""The masking systems behind one switch."""

from __future__ import annotations

from tats_ray.config import Config
from tats_ray.masking.frame import FrameMasker
from tats_ray.masking.mgm import MGMMasker
from tats_ray.masking.random import RandomMasker
from tats_ray.masking.sampled import SampledMasker
from tats_ray.masking.selection import Masker
from tats_ray.masking.trackmae import TrackMAEMasker
from tats_ray.masking.tube import TubeMasker
from tats_ray.models.sampler import Sampler


def build_masker(config: Config, sampler: Sampler | None) -> Masker:
    """The masker of `masking.system`; `sampler` is the policy of a learned one."""
    masking, grid, visible = config.masking, config.grid, config.visible
    match masking.system:
        case "random":
            return RandomMasker(visible)
        case "tube":
            return TubeMasker(grid, visible)
        case "frame":
            return FrameMasker(grid, visible)
        case "mgm":
            return MGMMasker(grid, visible, masking.mgm)
        case "trackmae":
            return TrackMAEMasker(grid, visible, masking.trackmae.motion_ratio)
    assert sampler is not None, f"{masking.system} draws from a sampler"
    return SampledMasker(sampler, visible)
