"""Pictures and enrichment on held-out clips, each when it is due."""

from __future__ import annotations

import math
from typing import Any

from tats_ray.config import Config
from tats_ray.controller.run_directory import RunDirectory
from tats_ray.errors import TooManyBrokenVideosError, VideoDecodeError
from tats_ray.evaluation.held_out import Enrichment, load_held_out
from tats_ray.evaluation.inspection import Inspection, Inspector, random_enrichment
from tats_ray.tracking.mask_history import read_history, save_mask_video
from tats_ray.tracking.pictures import save_pictures
from tats_ray.tracking.tracker import Tracker
from tats_ray.training.checkpoint import RunState

HELD_OUT_CLIPS = 64  # clips that enrichment is measured on

_PICTURE_CLIPS = 4  # that pictures show: as many as one looks at


class HeldOutInspection:
    """Looks at pre-training states with the run's own masks; remembers the newest enrichment."""

    def __init__(self, config: Config, directory: RunDirectory, manifest: str) -> None:
        """Decodes the held-out clips.

        Raises:
            RunDirectoryError: what earlier parts of the run have kept of the masks is damaged.
            TooManyBrokenVideosError: none of them can be decoded.
        """
        self._config = config
        self._pictures = directory.pictures
        self._history_file = directory.mask_history
        self._history = read_history(self._history_file)
        self._enrichment: Enrichment | None = None
        try:
            self._clips = load_held_out(config, manifest, HELD_OUT_CLIPS)
        except VideoDecodeError as error:
            raise TooManyBrokenVideosError(
                f"{manifest}: none of the first {HELD_OUT_CLIPS} videos to inspect can be decoded; "
                f"the first is {error}; repair the manifest (data.held_out_manifest or "
                "data.manifest)"
            ) from None

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` steps is looked at."""
        tracking = self._config.tracking
        return _due(step, tracking.picture_interval) or _due(step, tracking.enrichment_interval)

    def inspect(self, state: RunState, tracker: Tracker, *, last: bool) -> dict[str, float]:
        """Looks at a state where it is due or is the run's last; returns the metrics that belong to
        the step's record."""
        step, tracking = state.step, self._config.tracking
        draw = last or _due(step, tracking.picture_interval)
        measure = last or _due(step, tracking.enrichment_interval)
        inspector = Inspector(self._config, state)
        if draw:
            self._draw(step, inspector.inspect(self._clips.rows(0, _PICTURE_CLIPS)), tracker)
        if not measure:
            return {}
        self._enrichment = found = inspector.enrichment(self._clips)
        if found is None:
            return {}
        metrics = {"enrichment/moving": found.moving, "enrichment/static": found.static}
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _draw(self, step: int, shown: Inspection, tracker: Tracker) -> None:
        """Pictures of the state, and the video of the masks so far."""
        self._history = self._history.after(step, shown)
        self._history.write(self._history_file)
        files = save_pictures(shown, self._config, self._pictures, step)
        files += save_mask_video(self._history, shown, self._config, self._pictures)
        for file in files:
            tracker.mlflow.log_file(file, "pictures")

    def summary(self) -> dict[str, Any]:
        """The newest enrichment, beside that of random masks on the same clips."""
        learned, chance = self._enrichment, random_enrichment(self._config, self._clips)
        return {
            "motion_enrichment": None if learned is None else _known(learned.moving),
            "static_enrichment": None if learned is None else _known(learned.static),
            "motion_enrichment_random": None if chance is None else _known(chance.moving),
        }


def _known(enrichment: float) -> float | None:
    """None where no clip shows such an object."""
    return enrichment if math.isfinite(enrichment) else None


def _due(step: int, interval: int | None) -> bool:
    return interval is not None and step % interval == 0
