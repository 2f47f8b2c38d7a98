"""Steps that were not finite, with the videos that they stepped on."""

from __future__ import annotations

import numpy as np

from tats_ray.controller.run_directory import RunDirectory
from tats_ray.data.sampling import ClipOrder
from tats_ray.data.stage import BlockPlan
from tats_ray.errors import NonFiniteError
from tats_ray.models.nonfinite import Fault
from tats_ray.tracking.console import log

_NAMED = 4  # paths on the line; the file has all


class NonFiniteSteps:
    """Names the videos, on the line for people and in `nonfinite.jsonl`."""

    def __init__(self, plan: BlockPlan, directory: RunDirectory) -> None:
        self._plan = plan
        self._directory = directory

    def skipped(self, fault: Fault) -> None:
        """Reports a step that was skipped."""
        log(f"{fault.what}; left out{self._record(fault.what, fault.clips)}")

    def named(self, error: NonFiniteError) -> NonFiniteError:
        """The error with the videos in its message; as it is where they are not known."""
        return NonFiniteError(f"{error}{self._record(str(error), error.clips)}", error.clips)

    def _record(self, what: str, clips: tuple[int, ...]) -> str:
        if not clips:
            return ""
        paths = clip_paths(self._plan, clips)
        self._directory.record_nonfinite(what, paths)
        more = len(paths) - _NAMED
        rest = f" and {more} more in {self._directory.nonfinite}" if more > 0 else ""
        return f"; clips of: {', '.join(paths[:_NAMED])}{rest}"


def clip_paths(plan: BlockPlan, clips: tuple[int, ...]) -> list[str]:
    """Videos of the clips at these places of the stream, each once."""
    order = ClipOrder(plan.manifest.num_rows, plan.seed, plan.data.repeats)
    rows = order.rows_at(np.unique(np.array(clips, dtype=np.int64)))
    return list(dict.fromkeys(plan.manifest["path"].take(rows).to_pylist()))
