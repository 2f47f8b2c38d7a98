"""Every error that a user can cause or meet, in one place. Imports nothing of the package.

Each message is one line that names the field, file or part, and what to do about it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

_JOINERS = "\u200c\u200d"  # parts of emoji and of letters of some scripts
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def one_line(text: str) -> str:
    """A text that does nothing to a terminal or a table: what is not seen is escaped."""
    return "".join(ascii(sign)[1:-1] if _is_unseen(sign) else sign for sign in text)


def _is_unseen(sign: str) -> bool:
    if sign in _JOINERS:
        return False
    tag_or_selector = "\U000e0000" <= sign <= "\U000e0fff"  # of no width, in several categories
    return tag_or_selector or unicodedata.category(sign) in _UNSEEN


class TatsRayError(Exception):
    """Base of all errors raised for the user; jobs print it as one line and exit."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))  # whatever a file name or a value holds


class SetupError(TatsRayError):
    """The command cannot begin with what it was given."""

    exit_code = 2


class ConfigError(SetupError):
    """A setting is unknown, of the wrong type, or does not fit the others."""


class ManifestError(SetupError):
    """A manifest or list file cannot be read; names the file and, where there is one, the line."""


class VideoDecodeError(TatsRayError):
    """One video could not be decoded. The video is quarantined, never replaced."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class MotionPriorError(VideoDecodeError):
    """The motion that a masking system reads could not be had from one video; counted and
    quarantined like a broken video, never replaced by another prior."""


class TooManyBrokenVideosError(TatsRayError):
    """The share of undecodable videos passed `data.broken_share`, or none is left."""

    def __init__(self, message: str, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})  # path -> reason of every broken video


class ResourceError(SetupError):
    """The cluster has fewer CPUs or GPUs than the configured parts need."""


class RunDirectoryError(SetupError):
    """The run directory holds something that this command must not continue or overwrite."""


class StorageError(TatsRayError):
    """A file cannot be written: the disk is full, read-only or forbidden; or a video cannot be read
    for a reason that is none of the video's. Names the path."""


class CheckpointError(TatsRayError):
    """A checkpoint cannot be read or does not belong to this model."""


class ExportError(SetupError):
    """A model cannot be expressed in the format that it is to be exported in."""


class FeatureCacheError(TatsRayError):
    """Cached features of this encoder and these videos are damaged."""


class LeakError(SetupError):
    """A video or a group of videos is both trained on and tested on."""


class FeatureEncoderError(SetupError):
    """The image encoder of `model.feature_target` or its weights cannot be had."""


@dataclass(frozen=True)
class Fault:
    """A step that was not finite, which may be left out."""

    what: str  # step, ranks and metrics, for people
    clips: tuple[int, ...]  # places in the stream of the clips that these ranks stepped on


class NonFiniteError(TatsRayError):
    """A loss, gradient or log-probability became NaN or infinite; no update was applied.

    Attributes:
        clips: places in the stream of the clips that it happened on, where they are known.
    """

    def __init__(self, message: str, clips: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.clips = clips


class StaleRolloutError(TatsRayError):
    """A rollout was scored by an older autoencoder than `rl.staleness` permits."""


class ClusterLostError(TatsRayError):
    """Ray itself is gone; the same command continues."""


class ComponentTimeoutError(TatsRayError):
    """A wait on another component passed its time limit; says what was waited for."""


class ComponentFailedError(TatsRayError):
    """A component failed for good, after its restarts; carries the cause."""
