"""Motion that comes with a clip: what masking systems read and the motion target predicts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tats_ray.config.settings import Settings

Form = Literal["none", "field", "tracks"]
# Displacements at every place of every frame. All sources can follow points from frame 0 instead.
FIELD_SOURCES = frozenset({"vectors", "dense_flow"})


class MotionSettings(Settings):
    """Computed where clips are decoded, or read from a cache that jobs/prepare_data.py made.

    `auto` is `vectors` where a masking system reads a field, `lucas_kanade` where one reads tracks
    or tracks are a target, else `none`.
    """

    source: Literal["auto", "none", "vectors", "lucas_kanade", "dense_flow", "cotracker3"] = "auto"
    grid: int | None = Field(None, ge=2)  # points per side of the frame; empty: 2 x size / patch
    cache: str | None = None  # folder of jobs/prepare_data.py --motion; empty: compute
