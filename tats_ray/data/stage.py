"""The decode stage: the stream indices of a block in, decoded clips and failures out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tats_ray.config import Config
from tats_ray.config.data import ClipSettings
from tats_ray.data.clips import Clips
from tats_ray.data.decode import DecodedClips, DecodeRequest, Sampling
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.manifest import prepared_video
from tats_ray.data.motion.prior import MotionRequest
from tats_ray.data.motion.trackers import require_opencv
from tats_ray.data.sampling import manifest_rows, temporal_starts
from tats_ray.errors import TooManyBrokenVideosError, VideoDecodeError


class QuarantineBook(Protocol):
    """Where the stage reads and writes broken videos: a `Quarantine`, or the hub's client."""

    def known(self) -> Mapping[str, str]: ...

    def add(self, failures: list[VideoDecodeError]) -> None: ...


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
    """Stops a run whose manifest of so many distinct videos is broken rather than damaged.

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


class DecodeVideo(Protocol):
    """Which clips of a video a stream has; pickled to where videos are decoded."""

    def __call__(
        self, video: Mapping[str, Any], stream_indices: np.ndarray, decoder: DecoderProcess
    ) -> DecodedClips:
        """The clips of one row of the manifest, at consecutive stream_indices int64 [repeats].

        Raises:
            VideoDecodeError: it cannot be decoded.
        """
        ...


@dataclass(frozen=True)
class BlockPlan:
    """What a block of the stream consists of, computed where it is decoded.

    Block b covers the stream_indices b * block_clips .. (b + 1) * block_clips - 1.
    """

    data: ClipSettings
    motion: MotionRequest | None
    seed: int
    manifest: pa.Table
    decode_video: DecodeVideo

    def stream_indices(self, block: int) -> np.ndarray:
        size = self.data.block_clips
        return np.arange(block * size, (block + 1) * size, dtype=np.int64)

    def videos(self, stream_indices: np.ndarray) -> pa.Table:
        """One row per video, in stream order; each stands for `data.repeats` stream_indices."""
        firsts = stream_indices[:: self.data.repeats]
        rows = manifest_rows(firsts, self.manifest.num_rows, self.seed, self.data.repeats)
        return self.manifest.take(rows)

    def check_broken(self, reasons: Mapping[str, str]) -> None:
        """Ends a search for good clips that would take for ever; asked where a block has none.

        Raises:
            TooManyBrokenVideosError: as `check_share`.
        """
        videos = pa.compute.count_distinct(self.manifest["path"]).as_py()
        check_share(reasons, videos, self.data.broken_share)


@dataclass(frozen=True)
class RandomWindows:
    """Clips that begin anywhere in their video.

    Attributes:
        crops: consecutive clips of a video that share their frames.
    """

    data: ClipSettings
    motion: MotionRequest | None
    seed: int
    crops: int

    def __call__(
        self, video: Mapping[str, Any], stream_indices: np.ndarray, decoder: DecoderProcess
    ) -> DecodedClips:
        starts = temporal_starts(self.seed, stream_indices)[:: self.crops].tolist()
        request = clip_request(self.data, self.motion, video, starts)
        return decoder.decode(request, self.data.decode_seconds).repeated(self.crops)


def build_plan(config: Config, manifest: pa.Table) -> BlockPlan:
    """The stream of a run over a manifest."""
    data, motion, seed = config.data, motion_request(config), config.run.seed
    return BlockPlan(data, motion, seed, manifest, RandomWindows(data, motion, seed, data.crops))


def motion_request(config: Config) -> MotionRequest | None:
    """The motion that the clips of a run carry, if any.

    Raises:
        ConfigError: the library that finds it is not installed.
    """
    if config.motion_form == "none":
        return None
    if config.data.motion.cache is None:
        require_opencv(config.motion_source, f"data.motion.source={config.motion_source}")
    return MotionRequest(
        source=config.motion_source,
        form=config.motion_form,
        grid=config.motion_grid,
        tubelet=config.model.tubelet,
        cache=config.data.motion.cache,
    )


def clip_request(
    data: ClipSettings,
    motion: MotionRequest | None,
    video: Mapping[str, Any],
    starts: list[float],
    sampling: Sampling = "dense",
) -> DecodeRequest:
    """Asks for the clips of one video, a row of a manifest, that begin at `starts`."""
    return DecodeRequest(
        path=video["path"],
        frames=data.frames,
        stride=data.stride,
        starts=starts,
        height=data.stored_height,
        width=data.stored_width,
        decoder=data.decoder,
        motion=motion,
        sampling=sampling,
        prepared=prepared_video(video),
        cache=data.frame_cache,
    )


def decode_block(
    plan: BlockPlan, block: int, decoder: DecoderProcess, book: QuarantineBook
) -> Clips:
    """Decodes a block; broken videos are left out and reported, never replaced.

    Returns:
        The block's good clips in stream order, perhaps none; `first` is not known here and 0.
    """
    stream_indices = plan.stream_indices(block)
    videos = plan.videos(stream_indices)
    by_video = stream_indices.reshape(videos.num_rows, -1)
    known = book.known()
    decoded, kept, failures = [], [], []
    for row, video in enumerate(videos.to_pylist()):
        if video["path"] in known:
            continue
        try:
            decoded.append(plan.decode_video(video, by_video[row], decoder))
            kept.append(row)
        except VideoDecodeError as error:
            failures.append(error)
    if failures:
        book.add(failures)
    width, height = (videos[name].to_numpy()[kept] for name in ("width", "height"))
    frames, motion = _stack(plan, decoded)
    return Clips(
        frames=frames,
        aspects=np.repeat(width / height, plan.data.repeats),
        stream_indices=by_video[kept].reshape(-1),
        first=0,
        motion=motion,
    )


def _stack(plan: BlockPlan, decoded: list[DecodedClips]) -> DecodedClips:
    """Clips of all videos in one array; of the right shape also where there are none."""
    data, request = plan.data, plan.motion
    shape = (0, data.frames, data.stored_height, data.stored_width, 3)
    frames = [np.empty(shape, dtype=np.uint8), *(clips.frames for clips in decoded)]
    if request is None:
        return DecodedClips(np.concatenate(frames), None)
    points = (0, data.frames // request.tubelet, request.grid, request.grid, 2)
    motion = [clips.motion for clips in decoded if clips.motion is not None]
    empty = np.empty(points, dtype=np.float32)
    return DecodedClips(np.concatenate(frames), np.concatenate([empty, *motion]))
