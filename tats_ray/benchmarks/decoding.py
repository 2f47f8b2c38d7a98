"""What a clip costs to decode, by how its video is read."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tats_ray.config.data import ClipSettings
from tats_ray.data.container import probe_video
from tats_ray.data.decode import DecodeRequest, PreparedVideo, decode_clips
from tats_ray.data.stage import clip_request
from tats_ray.data.video_index import Reading
from tats_ray.errors import VideoDecodeError


@dataclass(frozen=True)
class DecodeCost:
    """Medians over clips at random places, in CPU milliseconds of this process.

    Attributes:
        reading: how the video is read, so that the frames are those that were asked for.
        exact: of a clip read so.
        decord: of the same clip read by decord's seek, whatever its frames are; None where it
            fails.
    """

    reading: Reading
    exact: float
    decord: float | None


def measure_decoding(path: Path, data: ClipSettings, clips: int) -> DecodeCost:
    """Decodes clips of one video both ways in turn.

    Raises:
        VideoDecodeError: it cannot be decoded.
    """
    info = probe_video(path)
    exact = PreparedVideo(info.reading, info.frames, info.bytes, info.mtime_ns)
    ways = [exact, replace(exact, reading="decord")]
    starts = np.random.default_rng(0).random(clips)
    costs = np.array([[_milliseconds(path, data, start, way) for way in ways] for start in starts])
    medians = np.median(costs, axis=0)
    return DecodeCost(info.reading, medians[0], None if np.isnan(medians[1]) else medians[1])


def _milliseconds(path: Path, data: ClipSettings, start: float, way: PreparedVideo) -> float:
    """CPU time of one clip; not a number where decord fails at what it does not read exactly."""
    request: DecodeRequest = replace(
        clip_request(data, None, {"path": str(path)}, [start]), prepared=way
    )
    if way.reading == "decord":
        request = replace(request, decoder="decord")
    started = time.process_time()
    try:
        decode_clips(request)
    except VideoDecodeError:
        if request.decoder != "decord":
            raise
        return float("nan")
    return 1000 * (time.process_time() - started)
