"""A real cause of NaN: a black video where patches are divided by their deviation alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tats_ray.data.manifest import ManifestRow, read_manifest, write_manifest
from tats_ray.data.sampling import manifest_rows
from tats_ray.data.video_writer import write_h264

DIVIDE = ["model.target.epsilon=0.0", "data.augment.crop=full"]


class FlatVideo(NamedTuple):
    """Where the flat video is.

    Attributes:
        path: the video.
        manifest: the synthetic set with it.
        place: its first clip's place in the stream of seed 0; the next is 21 clips later.
    """

    path: str
    manifest: Path
    place: int

    def step(self, batch_size: int) -> int:
        """Finished steps behind the one that meets it first."""
        return self.place // batch_size + 1

    def rank(self, batch_size: int, ranks: int) -> int:
        """Whose share of the batch it is in."""
        return self.place % batch_size // (batch_size // ranks)


def flat_video(synthetic, folder: Path) -> FlatVideo:
    path = folder / "flat.mp4"
    write_h264(path, np.zeros((12, 32, 32, 3), dtype=np.uint8), fps=16)
    rows = [ManifestRow(**row) for row in read_manifest(synthetic.train).to_pylist()]
    rows.append(ManifestRow(str(path), rows[0].label, 12, 16.0, 32, 32))
    manifest = folder / "with_flat.parquet"
    write_manifest(manifest, rows)
    order = manifest_rows(np.arange(len(rows)), len(rows), 0)
    return FlatVideo(str(path), manifest, order.tolist().index(len(rows) - 1))


def flat_settings(video: FlatVideo, synthetic, output: Path) -> list[str]:
    """Overrides of a tiny run over the set, with a checkpoint after every step."""
    return [
        *DIVIDE, f"data.manifest={video.manifest}", f"data.held_out_manifest={synthetic.held_out}",
        f"run.output_dir={output}", "tracking.mlflow=false", "checkpoint.interval=1",
        "checkpoint.keep=20", "train.steps=3", "tracking.log_interval=1",
    ]  # fmt: skip
