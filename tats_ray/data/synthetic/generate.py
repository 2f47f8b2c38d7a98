"""The synthetic set on disk: H.264 files, truth masks and a manifest for each split."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tats_ray.config.data import SyntheticSettings
from tats_ray.data.manifest import ManifestRow, write_manifest
from tats_ray.data.synthetic.scene import CLASSES, FRAMES_PER_SECOND, random_scene, render
from tats_ray.data.video_writer import write_h264
from tats_ray.storage import making_folder

_FORMAT = 4  # raise it when the same settings give other videos


@dataclass(frozen=True)
class SyntheticSet:
    """Manifests of the training and the held-out clips."""

    train: Path
    held_out: Path


def ensure_synthetic(settings: SyntheticSettings, output_dir: Path) -> SyntheticSet:
    """Makes the set on first use; later runs with the same settings find it.

    The folder is written aside and renamed, so that a half-written set is never used.

    Raises:
        StorageError: disk full or read-only; nothing is left of the attempt.
    """
    root = output_dir / "synthetic" / _digest(settings)
    made = SyntheticSet(root / "train.parquet", root / "held_out.parquet")
    if made.train.exists() and made.held_out.exists():
        return made
    with making_folder(root) as aside:
        _write_split(settings, aside, root, "train", 0, settings.clips)
        _write_split(settings, aside, root, "held_out", settings.clips, settings.held_out_clips)
    return made


def _write_split(
    settings: SyntheticSettings, aside: Path, root: Path, split: str, first: int, count: int
) -> None:
    (aside / split).mkdir()
    kinds = CLASSES[settings.classes]
    tasks = [(settings, aside / split, first + i, kinds[i % len(kinds)]) for i in range(count)]
    workers = min(os.cpu_count() or 1, max(1, count // 16))
    if workers == 1:
        names = [_write_clip(task) for task in tasks]
    else:
        # Not fork: the caller may already run threads.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            names = list(pool.map(_write_clip, tasks, chunksize=8))
    folder, size, fps = (root / split).absolute(), settings.size, float(FRAMES_PER_SECOND)
    rows = [
        ManifestRow(
            f"{folder / name}.mp4", kind, settings.frames, fps, size, size, f"{folder / name}.npz"
        )
        for name, (_, _, _, kind) in zip(names, tasks, strict=True)
    ]
    write_manifest(aside / f"{split}.parquet", rows)


def _write_clip(task: tuple[SyntheticSettings, Path, int, str]) -> str:
    settings, folder, seed, kind = task
    clip = render(random_scene(settings, kind, seed))
    name = f"{seed:06d}_{kind}"
    write_h264(folder / f"{name}.mp4", clip.frames, FRAMES_PER_SECOND)
    np.savez_compressed(
        folder / f"{name}.npz",
        shape=np.array(clip.moving.shape),
        moving=np.packbits(clip.moving),
        static=np.packbits(clip.static),
    )
    return name


def _digest(settings: SyntheticSettings) -> str:
    content = json.dumps([_FORMAT, settings.model_dump()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]
