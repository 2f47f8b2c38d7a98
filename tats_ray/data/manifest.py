"""The manifest: one Parquet row per video. Read once in the driver, shipped to tasks in parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tats_ray.errors import ManifestError

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("frames", pa.int64(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("truth", pa.string()),  # synthetic sets: masks of moving and static objects
    ]
)
OPTIONAL_COLUMNS = frozenset({"label", "truth"})


@dataclass(frozen=True)
class ManifestRow:
    """One video.

    Attributes:
        path: absolute path.
        label: class name, or None.
        frames: number of frames that the container promises.
        fps: frames per second.
        width, height: pixels as shown (after the container's rotation).
        truth: file of truth masks, or None.
    """

    path: str
    label: str | None
    frames: int
    fps: float
    width: int
    height: int
    truth: str | None = None


def write_manifest(path: Path, rows: Sequence[ManifestRow]) -> None:
    """Writes a manifest aside and renames it, so that readers never see half a file."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, aside)
    aside.replace(path)


def read_manifest(path: str | Path) -> pa.Table:
    """Reads and checks a manifest.

    Returns:
        Table with the columns of `SCHEMA`; optional ones are filled with nulls.

    Raises:
        ManifestError: names the file, the column or the row, and the remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; make one with jobs/prepare_data.py")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{path}: is not a Parquet file ({_first_line(error)})") from None
    table = _with_schema(path, table)
    if table.num_rows == 0:
        raise ManifestError(f"{path}: has no rows; add videos and prepare it again")
    for name in ("frames", "width", "height", "fps"):
        smallest = pa.compute.min(table[name]).as_py()
        if smallest <= 0:
            raise ManifestError(f"{path}: column '{name}' has the value {smallest}; must be > 0")
    return table


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
        except pa.ArrowInvalid as error:
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
