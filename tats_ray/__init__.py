"""Masked video autoencoders with learned token sampling, as an actor/learner system on Ray."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tats_ray.config.geometry import TokenGrid
    from tats_ray.config.model import ModelSettings
    from tats_ray.evaluation.exported_sampler import load_sampler
    from tats_ray.evaluation.trained_run import load_run
    from tats_ray.models.mae import MaskedAutoencoder
    from tats_ray.models.samplers import TrajectorySampler

__all__ = [
    "MaskedAutoencoder",
    "ModelSettings",
    "TokenGrid",
    "TrajectorySampler",
    "load_run",
    "load_sampler",
]
__version__ = "0.1.0"

# Imported on first use: `import tats_ray` and the commands' --help stay instant, without torch.
_PLACES = {
    "MaskedAutoencoder": "tats_ray.models.mae",
    "ModelSettings": "tats_ray.config.model",
    "TokenGrid": "tats_ray.config.geometry",
    "TrajectorySampler": "tats_ray.models.samplers",
    "load_run": "tats_ray.evaluation.trained_run",
    "load_sampler": "tats_ray.evaluation.exported_sampler",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
