"""Videos that could not be decoded: remembered by name, counted, and bounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tats_ray.errors import TooManyBrokenVideosError, VideoDecodeError


class Quarantine:
    """Broken videos of a run, each with the reason of its first failure."""

    def __init__(self, reasons: Mapping[str, str] | None = None) -> None:
        self.reasons: dict[str, str] = dict(reasons or {})

    def known(self) -> Mapping[str, str]:
        """Path -> reason of every broken video so far; these are not tried again."""
        return self.reasons

    def add(self, failures: Iterable[VideoDecodeError]) -> None:
        for failure in failures:
            self.reasons.setdefault(failure.path, failure.reason)


def check_share(reasons: Mapping[str, str], videos: int, limit: float) -> None:
    """Stops a run whose manifest is broken rather than damaged.

    Args:
        videos: distinct videos of the manifest.
        limit: `data.broken_share`.

    Raises:
        TooManyBrokenVideosError: with counts, limit and the newest failure; also where no video
            is left, whatever the limit.
    """
    if len(reasons) > limit * videos or len(reasons) >= videos:
        path, reason = list(reasons.items())[-1]
        raise TooManyBrokenVideosError(
            f"{len(reasons)} of {videos} videos cannot be decoded, more than data.broken_share="
            f"{limit:g}; the last is {path} ({reason}); repair the manifest or raise the limit",
            reasons,
        )
