"""Labelled clips: the classes of a manifest, the class of each clip of the stream, and repeats of
one decoded clip, each in another appearance."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tats_ray.config.data import ClipSettings
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.data.decode import DecodedClips, Sampling
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.randomness import Stream, global_generators, torch_seed
from tats_ray.data.sampling import manifest_rows, temporal_starts
from tats_ray.data.stage import BlockPlan, clip_request
from tats_ray.errors import ManifestError


@dataclass(frozen=True)
class RepeatedClip:
    """One decoded clip of a video, `data.repeats` times. RandAugment runs where clips are decoded,
    on CPUs and before the crop, as in VideoMAE's loader."""

    data: ClipSettings
    seed: int
    sampling: Sampling
    rand_augment: str | None

    def __call__(
        self, video: Mapping[str, Any], stream_indices: np.ndarray, decoder: DecoderProcess
    ) -> DecodedClips:
        start = float(temporal_starts(self.seed, stream_indices)[0])
        request = clip_request(self.data, None, video, [start], self.sampling)
        frames = decoder.decode(request, self.data.decode_seconds).frames
        if self.rand_augment is None:
            return DecodedClips(np.repeat(frames, len(stream_indices), axis=0), None)
        seeds = [torch_seed(self.seed, Stream.RAND_AUGMENT, int(place)) for place in stream_indices]
        clips = [rand_augment(frames[0], self.rand_augment, seed, self.data.size) for seed in seeds]
        return DecodedClips(np.stack(clips), None)


def build_labelled_plan(config: FinetuneConfig, manifest: pa.Table) -> BlockPlan:
    """The stream of a fine-tuning run over its training manifest."""
    data, seed = config.data, config.run.seed
    sampling: Sampling = "window" if data.sampling == "dense" else "jittered_segments"
    clips = RepeatedClip(data, seed, sampling, data.augment.rand_augment)
    return BlockPlan(data, None, seed, manifest, clips)


def rand_augment(frames: np.ndarray, policy: str, seed: int, size: int) -> np.ndarray:
    """RandAugment of one clip: every frame is drawn the same operations at the same strength.

    Args:
        frames: uint8 [T, H, W, 3], as the result.
        policy: timm's notation, such as rand-m7-n4-mstd0.5-inc1.
        size: side of the model input, which limits translations.
    """
    from PIL import Image

    transform = _transform(policy, size)
    augmented = []
    for frame in frames:
        # What timm draws does not depend on the picture, so a seed means the same to every frame.
        with global_generators(seed):
            augmented.append(np.asarray(transform(Image.fromarray(frame))))
    return np.stack(augmented)


@functools.cache
def _transform(policy: str, size: int) -> Callable[[Any], Any]:
    from PIL.Image import Resampling
    from timm.data.auto_augment import rand_augment_transform

    settings = {"translate_const": int(size * 0.45), "interpolation": Resampling.BICUBIC}
    return rand_augment_transform(policy, settings)


def classes_of(path: str | Path, manifest: pa.Table) -> list[str]:
    """Sorted class names.

    Raises:
        ManifestError: a video has no label, or there is one class only.
    """
    labels = manifest["label"].to_pylist()
    if None in labels:
        video = manifest["path"][labels.index(None)].as_py()
        raise ManifestError(
            f"{path}: {video} has no label; prepare it from class folders or `path label` lines"
        )
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise ManifestError(f"{path}: has the single class '{classes[0]}'; at least 2 are needed")
    return classes


def class_index(path: str | Path, manifest: pa.Table, classes: list[str]) -> np.ndarray:
    """Class number of every row, int64 [videos].

    Raises:
        ManifestError: a video has no label, or one that is no class.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    labels = manifest["label"].to_pylist()
    for row, label in enumerate(labels):
        if label not in numbers:
            what = "no label" if label is None else f"the label '{label}'"
            raise ManifestError(
                f"{path}: {manifest['path'][row].as_py()} has {what}, which is none of the "
                f"{len(classes)} classes of the training set"
            )
    return np.array([numbers[label] for label in labels], dtype=np.int64)


@dataclass(frozen=True)
class ClipLabels:
    """Tells a clip's class by its place in the shuffled stream."""

    rows: np.ndarray  # int64 [videos], class number of every manifest row
    seed: int
    repeats: int

    def at(self, stream_indices: np.ndarray) -> np.ndarray:
        """Ascending stream_indices int64 [B] -> class numbers int64 [B]."""
        return self.rows[manifest_rows(stream_indices, len(self.rows), self.seed, self.repeats)]
