"""Motion enrichment of a pre-training run on videos whose moving objects are known."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path

from tats_ray.config import Config
from tats_ray.data.manifest import read_manifest
from tats_ray.errors import ManifestError
from tats_ray.evaluation.held_out import load_held_out
from tats_ray.evaluation.inspection import Inspector
from tats_ray.evaluation.sequence_enrichment import (
    SequenceEnrichment,
    mean_over_sequences,
    sequence_enrichment,
)
from tats_ray.storage import replacing, writing
from tats_ray.tracking.console import log, log_table
from tats_ray.tracking.pictures import save_pictures
from tats_ray.training.checkpoint import newest_checkpoint, read_state


def measure_enrichment(config: Config, run: Path, manifest: str) -> dict[str, SequenceEnrichment]:
    """Looks at the middle of every video with the masks of a run's newest checkpoint; leaves
    `enrichment.json` and a picture of each video in `<run>/enrichment/<name of the manifest>`.

    Returns:
        The enrichment of each video by its file's name, and last that of their `mean`.

    Raises:
        CheckpointError: the run has no complete checkpoint.
        ManifestError: a video has no ground truth.
    """
    state = read_state(newest_checkpoint(run))
    table = read_manifest(manifest)
    for row in table.to_pylist():
        if row["mask"] is None and row["ground_truth"] is None:
            raise ManifestError(
                f"{manifest}: {row['path']} has no mask of moving objects; name it in a column "
                "'mask' of the list and prepare the manifest again"
            )
    clips = load_held_out(config, manifest, table.num_rows)
    if len(clips) < table.num_rows:
        raise ManifestError(
            f"{manifest}: {table.num_rows - len(clips)} videos cannot be decoded; leave them out"
        )
    inspector = Inspector(config, state)
    found = sequence_enrichment(inspector, clips)
    names = [Path(path).stem for path in table["path"].to_pylist()]
    results = dict(zip(names, found, strict=True)) | {"mean": mean_over_sequences(found)}
    folder = run / "enrichment" / Path(manifest).stem
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_pictures(inspector.inspect(clips), config.grid, folder, state.step)
    _report(folder, state.step, results)
    return results


def _report(folder: Path, step: int, results: dict[str, SequenceEnrichment]) -> None:
    content = {name: _finite(result) for name, result in results.items()}
    with replacing(folder / "enrichment.json") as aside:
        aside.write_text(json.dumps({"step": step, "enrichment": content}, indent=2))
    header = ["video", *(field.name for field in fields(SequenceEnrichment))]
    rows = (
        [name, *("-" if value is None else f"{value:.2f}" for value in values.values())]
        for name, values in content.items()
    )
    log_table(f"motion enrichment after step {step}", header, rows)
    log(str(folder))


def _finite(result: SequenceEnrichment) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(result).items()}
