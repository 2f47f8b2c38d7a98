"""What local Ray costs: decoding beside a bare pool, weights on their way, and rollout workers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from tats_ray.actors.cluster import connect
from tats_ray.benchmarks.results import Figure
from tats_ray.config import Config
from tats_ray.data.manifest import ManifestRow, read_manifest, write_manifest
from tats_ray.data.stage import BlockPlan, build_plan
from tats_ray.data.synthetic.scene import FRAMES_PER_SECOND, random_scene, render
from tats_ray.data.video_writer import write_h264

_VIDEOS = 16
_FRAMES = 128  # as many as a clip of 16 at stride 4 needs, twice


def measure_pipeline(config: Config, repeats: int, profile: Path | None) -> dict[str, Figure]:
    """Clips per second of as many decode workers as there are CPUs, through Ray Data and without
    Ray, on the videos of `data.manifest` or on generated ones of the stored frame size.

    Args:
        profile: folder for Ray's timeline.
    """
    from tats_ray.actors.ray_cost import pool_seconds, save_timeline, stream_seconds

    workers = os.cpu_count() or 1
    config = _with_cluster(config, cpus=workers, decode_cpus=1.0)
    blocks = 2 * config.data.prefetch_blocks
    clips = blocks * config.data.block_clips
    connect(config)
    with _plan(config) as plan:
        seconds = [
            (pool_seconds(plan, workers, blocks), stream_seconds(plan, config, blocks))
            for _ in range(repeats)
        ]
    if profile is not None:
        save_timeline(profile / "pipeline.json")
    pool, stream = np.array(seconds).T / clips
    return {
        "pool": Figure.of(pool, "s/clip"),
        "ray_data": Figure.of(stream, "s/clip"),
        "ray_data/pool": Figure(float(np.median(pool / stream)), "of its speed"),
    }


def measure_weights(config: Config, repeats: int) -> dict[str, Figure]:
    """Seconds from the autoencoder of a finished step to its use in a rollout worker."""
    from tats_ray.actors.ray_cost import weights_seconds

    connect(_with_cluster(config, cpus=4))
    return {"published to used": Figure.of(np.array(weights_seconds(config, repeats)), "s")}


def measure_scaling(
    config: Config, workers: list[int], repeats: int, profile: Path | None
) -> dict[str, Figure]:
    """Seconds of a round of rollouts with a chunk for each worker, in an environment that answers
    after a fixed time; `efficiency` compares with one worker.

    Args:
        profile: folder for Ray's timeline.
    """
    from tats_ray.actors.ray_cost import FixedCostEnvironment, rollout_seconds, save_timeline

    most = max(workers)
    rl = config.rl.model_copy(update={"rollout_workers": most, "draws_per_clip": 1})
    config = _with_cluster(config.model_copy(update={"rl": rl}), cpus=most + 2)
    connect(config)
    with tempfile.TemporaryDirectory() as folder, _plan(config) as plan:
        times = rollout_seconds(config, plan, {1, *workers}, repeats, Path(folder))
    if profile is not None:
        save_timeline(profile / "scale.json")
    figures = {f"{count}": Figure.of(np.array(found), "s") for count, found in times.items()}
    alone = float(np.median(times[1]))
    figures |= {
        f"{count}/efficiency": Figure(alone / float(np.median(found)), "of one worker's rate")
        for count, found in times.items()
    }
    return figures | {"fixed cost": Figure(FixedCostEnvironment.seconds, "s")}


def _with_cluster(config: Config, cpus: int, decode_cpus: float = 0.5) -> Config:
    """On local Ray that counts so many CPUs."""
    update = {"mode": "local", "cpus": cpus, "decode_cpus": decode_cpus}
    return config.model_copy(update={"cluster": config.cluster.model_copy(update=update)})


@contextmanager
def _plan(config: Config) -> Iterator[BlockPlan]:
    """Of the stream of clips; generated videos are gone with the block."""
    if config.data.manifest is not None:
        yield build_plan(config, read_manifest(config.data.manifest))
        return
    with tempfile.TemporaryDirectory() as folder:
        yield build_plan(config, _generated(config, Path(folder)))


def _generated(config: Config, folder: Path) -> pa.Table:
    """Manifest of generated videos."""
    data = config.data
    side = max(data.stored_height, data.stored_width)
    settings = data.synthetic.model_copy(update={"frames": _FRAMES, "size": side})
    height, width, rows = data.stored_height, data.stored_width, []
    for number in range(_VIDEOS):
        path = folder / f"{number}.mp4"
        frames = render(random_scene(settings, "linear", number)).frames[:, :height, :width]
        write_h264(path, frames, FRAMES_PER_SECOND)
        fps = float(FRAMES_PER_SECOND)
        row = ManifestRow(str(path), None, _FRAMES, fps, width, height, reading="decord")
        rows.append(row)
    write_manifest(folder / "videos.parquet", rows)
    return read_manifest(folder / "videos.parquet")
