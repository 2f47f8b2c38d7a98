"""What every masking system has in common, and how a system is found by its name."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

from pydantic import Field

from tats_ray.config.geometry import TokenGrid
from tats_ray.config.settings import Settings
from tats_ray.errors import ConfigError

# What a system looks at beside random numbers: the autoencoder's patch tokens, averaged pixels and
# their change over time, the frames themselves, motion between all pixels of two frames, or the
# paths of points.
Reads = Literal["nothing", "tokens", "pixels", "frames", "field", "tracks"]
# Of these, what comes with a clip from where it is decoded; all else is made of its pixels.
MOTION_READS: frozenset[Reads] = frozenset({"field", "tracks"})
# What trains its sampler: nothing (it has none), PPO on rollouts, or the model's own step.
TrainedBy = Literal["nothing", "rollouts", "step"]

SYSTEMS = {
    "tats": "tats_ray.masking.tats:TATS",
    "adamae": "tats_ray.masking.adamae:AdaMAE",
    "mgm": "tats_ray.masking.mgm:MGM",
    "trackmae": "tats_ray.masking.trackmae:TrackMAE",
    "tube": "tats_ray.masking.tube:Tube",
    "random": "tats_ray.masking.random:Random",
    "frame": "tats_ray.masking.frame:Frame",
    "difference": "tats_ray.masking.difference:Difference",
    "codec": "tats_ray.masking.codec:Codec",
}


class MaskingSettings(Settings):
    """Settings of every system. A system adds its own in a subclass."""

    system: str = "tats"
    """Short name, or `package.module:Class` of your own."""
    ratio: float = Field(0.9, gt=0, lt=1)
    """Share of the tokens that is hidden."""

    def check(self, grid: TokenGrid, token_width: int) -> None:
        """Raises ValueError, which names the setting, where one does not fit the tokens."""


class RolloutSettings(MaskingSettings):
    """Settings of every system whose sampler is trained by rollouts."""

    warmup_steps: int = Field(0, ge=0)
    """Steps with random masks before rollouts start."""
    slice_noise: float = Field(3.0, ge=0)
    """Noise that the tokens of a time slice share in a draw, as a multiple of each token's own:
    from 3 on the visible tokens lie in a few slices of a clip, in others with every draw."""


class StepSettings(MaskingSettings):
    """Settings of every system whose sampler is trained in the model's own step."""

    coefficient: float = Field(1e-4, gt=0)
    """Weight of the sampling loss beside the reconstruction loss."""
    detach: bool = True
    """Whether the sampling loss leaves the patch embedding alone."""


class MaskingSystem(Protocol):
    """What the configuration asks of a system; `tats_ray.masking.selection` has the rest.

    Attributes:
        Settings: subclass of `MaskingSettings`.
    """

    Settings: type[MaskingSettings]
    reads: Reads
    trained_by: TrainedBy

    def __init__(self, settings: Any, grid: TokenGrid) -> None: ...

    def count_visible(self) -> int:
        """Visible tokens, the same number for every clip."""
        ...


_COUNT = {"count_visible": "self"}
_METHODS = {
    "nothing": _COUNT | {"select": "self, noise, view"},
    "rollouts": _COUNT | {"build_sampler": "self, token_width, critic"},
    "step": _COUNT
    | {"build_sampler": "self, token_width", "loss": "self, log_probs, targets, error"},
}
_SETTINGS = {"nothing": MaskingSettings, "rollouts": RolloutSettings, "step": StepSettings}


@cache
def system_class(name: str) -> type[MaskingSystem]:
    """The class of a masking system.

    Args:
        name: a key of `SYSTEMS`, or `package.module:Class`; the module may lie in the working
            directory.

    Raises:
        ConfigError: nothing has this name, or it is no masking system.
    """
    module, separator, attribute = SYSTEMS.get(name, name).partition(":")
    if not separator or not all(part.isidentifier() for part in [*module.split("."), attribute]):
        close = difflib.get_close_matches(name, SYSTEMS, n=1)
        known = f"known here: {', '.join(SYSTEMS)}, or package.module:Class"
        remedy = f"did you mean {close[0]}?" if close else known
        raise ConfigError(f"masking.system: {name!r} is unknown; {remedy}")
    found = _find(name, module, attribute)
    lack = next(_lacks(found), None)
    if lack is not None:
        raise ConfigError(
            f"masking.system: {name} {lack}; examples/checkerboard.py shows a whole system"
        )
    return cast(type[MaskingSystem], found)


def settings_class(given: dict[Any, Any]) -> type[MaskingSettings]:
    """The settings class for a section `masking` as given, before it is validated.

    Raises:
        ConfigError: as `system_class`.
    """
    name = given.get("system", MaskingSettings.model_fields["system"].default)
    return system_class(name).Settings if isinstance(name, str) else MaskingSettings


def default_settings() -> MaskingSettings:
    """The settings of the default system; found late, because its module imports this one."""
    return settings_class({})()


def switch_system(given: dict[Any, Any], system: Any) -> None:
    """Sets `system` in a section `masking`, in place. What only the former system has is dropped:
    it would mean nothing to another one.

    Raises:
        ConfigError: as `system_class`, of the former system.
    """
    own = given.keys() - MaskingSettings.model_fields.keys()
    if own and system != given.get("system", MaskingSettings.model_fields["system"].default):
        for name in own & settings_class(given).model_fields.keys():
            del given[name]
    given["system"] = system


def _find(name: str, module: str, attribute: str) -> Any:
    if name not in SYSTEMS and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a script's own folder stands there, not the user's
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"masking.system: {name} cannot be imported ({error}); start where its module lies, or "
            "install it"
        ) from None
    if not hasattr(found, attribute):
        raise ConfigError(
            f"masking.system: {module} has no {attribute}; name its class as package.module:Class"
        )
    return getattr(found, attribute)


def _lacks(found: Any) -> Iterator[str]:
    """What keeps a class from being a masking system; each holds if nothing before it does."""
    if not isinstance(found, type):
        yield "is not a class"
    for name, known in (("reads", get_args(Reads)), ("trained_by", get_args(TrainedBy))):
        if getattr(found, name, None) not in known:
            yield f"needs `{name}`, one of {', '.join(known)}"
    system = cast(type[MaskingSystem], found)
    if system.trained_by != "nothing" and system.reads not in ("tokens", "pixels"):
        yield "must read tokens or pixels, as every sampler that is trained"
    base, settings = _SETTINGS[system.trained_by], getattr(found, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, base)):
        yield f"needs `Settings`, a subclass of tats_ray.config.masking.{base.__name__}"
    if not _takes(found, "settings, grid"):
        yield "needs `__init__(self, settings, grid)`"
    for method, arguments in _METHODS[system.trained_by].items():
        if not _takes(getattr(found, method, None), arguments):
            yield f"needs `{method}({arguments})`"


def _takes(called: Any, arguments: str) -> bool:
    try:
        inspect.signature(called).bind(*arguments.split(", "))
    except (TypeError, ValueError):
        return False
    return True
