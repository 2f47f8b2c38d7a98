"""The manifest: one Parquet row per video. Read once in the driver, shipped to tasks in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from tats_ray.data.decode import PreparedVideo
from tats_ray.data.video_index import Reading
from tats_ray.errors import ManifestError
from tats_ray.storage import replacing

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("frames", pa.int64(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("ground_truth", pa.string()),  # synthetic sets: masks of moving and static objects
        pa.field("mask", pa.string()),  # real sets: masks of moving objects
        pa.field("fold", pa.string()),
        pa.field("group", pa.string()),
        pa.field("reading", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
    ]
)
_FOUND = ("reading", "bytes", "mtime_ns")  # older manifests lack these
OPTIONAL_COLUMNS = frozenset({"label", "ground_truth", "mask", "fold", "group", *_FOUND})


@dataclass(frozen=True)
class ManifestRow:
    """One video.

    Attributes:
        path: absolute path.
        label: class name, or None.
        frames: number of frames that decode.
        fps: frames per second.
        width, height: pixels as shown (after the container's rotation).
        ground_truth: file of truth masks of a synthetic video, or None.
        mask: file of masks of moving objects of a real one, or None (see data/ground_truth.py).
        fold, group: where a probe keeps it, or None; `probe.folds` may be the manifest.
        reading: which decoder reads the video exactly: `decord`; `seek` (PyAV, from the keyframe
            before a clip); `in_order` (PyAV, from the first frame). None: looked at when decoded.
        bytes, mtime_ns: size and time of change of the file when it was looked at, or None.
    """

    path: str
    label: str | None
    frames: int
    fps: float
    width: int
    height: int
    ground_truth: str | None = None
    reading: Reading | None = None
    bytes: int | None = None
    mtime_ns: int | None = None
    mask: str | None = None
    fold: str | None = None
    group: str | None = None


def write_manifest(path: Path, rows: Sequence[ManifestRow]) -> None:
    """Writes a manifest aside and renames it, so that readers never see half a file.

    Raises:
        StorageError: disk full or read-only; an older manifest is intact.
    """
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    table = pa.table(columns, schema=SCHEMA)
    with replacing(path) as aside:
        pq.write_table(table, aside)


def read_manifest(path: str | Path) -> pa.Table:
    """Reads and checks a manifest.

    Returns:
        Table with the columns of `SCHEMA`; optional ones are filled with nulls.

    Raises:
        ManifestError: names the file, the column or the row (counted from 0), and the remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; make one with tats-ray prepare")
    try:
        names = pq.read_schema(path).names
        twice = next((name for name in SCHEMA.names if names.count(name) > 1), None)
        if twice is not None:
            raise ManifestError(f"{path}: column '{twice}' appears twice; keep one of them")
        table = pq.read_table(path, columns=[name for name in SCHEMA.names if name in names])
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{path}: is not a Parquet file ({_first_line(error)})") from None
    table = _with_schema(path, table)
    if table.num_rows == 0:
        raise ManifestError(f"{path}: has no rows; add videos and prepare it again")
    for name in ("frames", "width", "height", "fps"):
        _check_positive(path, name, table[name])
    _check_paths(path, table["path"])
    _check_found(path, table)
    return table


def _check_positive(file: Path, name: str, column: pa.ChunkedArray) -> None:
    good = pa.compute.greater(column, 0)  # NaN is not greater either
    if pa.types.is_floating(column.type):
        good = pa.compute.and_(good, pa.compute.is_finite(column))
    row = pa.compute.index(good, False).as_py()
    if row >= 0:
        raise ManifestError(
            f"{file}: row {row}: column '{name}' has the value {column[row].as_py()}; must be > 0"
        )


def _check_found(file: Path, table: pa.Table) -> None:
    """All of what was found when a video was looked at, or nothing."""
    known = pa.compute.is_in(table["reading"], pa.array([None, *get_args(Reading)]))
    row = pa.compute.index(known, False).as_py()
    if row >= 0:
        raise ManifestError(
            f"{file}: row {row}: column 'reading' has the value "
            f"'{table['reading'][row].as_py()}', not one of {', '.join(get_args(Reading))}"
        )
    for name in _FOUND[1:]:
        same = pa.compute.equal(table[name].is_null(), table["reading"].is_null())
        if (row := pa.compute.index(same, False).as_py()) >= 0:
            raise ManifestError(
                f"{file}: row {row}: '{name}' and 'reading' must both be there or both be empty; "
                "prepare the manifest again"
            )


def prepared_video(row: Mapping[str, Any]) -> PreparedVideo | None:
    """What a row of a manifest holds of how its video is read; None: nothing."""
    if row.get("reading") is None:
        return None
    return PreparedVideo(row["reading"], row["frames"], row["bytes"], row["mtime_ns"])


def _check_paths(file: Path, column: pa.ChunkedArray) -> None:
    row = pa.compute.index(pa.compute.binary_length(column), 0).as_py()
    if row >= 0:
        raise ManifestError(f"{file}: row {row}: 'path' is empty; prepare the manifest again")
    if pa.compute.count_distinct(column).as_py() == len(column):
        return
    counts = pa.compute.value_counts(column.combine_chunks())
    place = pa.compute.index(pa.compute.greater(counts.field("counts"), 1), True).as_py()
    twice = counts.field("values")[place]
    first, second = pa.compute.indices_nonzero(pa.compute.equal(column, twice))[:2].to_pylist()
    raise ManifestError(
        f"{file}: row {second}: {twice} is already in row {first}; keep one of them"
    )


def _with_schema(path: Path, table: pa.Table) -> pa.Table:
    columns = []
    for field in SCHEMA:
        if field.name not in table.column_names:
            if field.name not in OPTIONAL_COLUMNS:
                raise ManifestError(
                    f"{path}: column '{field.name}' is missing; has {table.column_names}"
                )
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            column = table[field.name].cast(field.type)
        except pa.ArrowException as error:
            raise ManifestError(
                f"{path}: column '{field.name}' is not {field.type} ({_first_line(error)})"
            ) from None
        if column.null_count and field.name not in OPTIONAL_COLUMNS:
            row = column.is_null().index(True).as_py()
            raise ManifestError(f"{path}: row {row}: '{field.name}' is empty")
        columns.append(column)
    return pa.table(columns, schema=SCHEMA)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
