"""`metrics.jsonl`: one JSON object per record, appended; it never depends on a server."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from tats_ray.storage import replacing, writing

Records = Sequence[Mapping[str, Any]]  # lines of the file


@dataclass(frozen=True)
class Record:
    """Mean metrics of the steps since the last record; `step` is the last of them."""

    step: int
    metrics: dict[str, float]


class MetricsFile:
    """Appends records; a resumed run first drops what lies behind its checkpoint."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        kept = [line for line in read_records(path) if line["step"] <= resumed_step]
        with replacing(path) as aside:
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        # An interval of which no step was finite has no loss.
        losses = [line["loss"] for line in kept if "loss" in line]
        self.first_loss: float | None = losses[0] if losses else None
        self.last_loss: float | None = losses[-1] if losses else None
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Adds a record; it is in the operating system's hands when this returns."""
        with writing(self._path):
            self._file.write(json.dumps({"step": record.step, **record.metrics}) + "\n")
            self._file.flush()
        self.last_loss = record.metrics.get("loss", self.last_loss)
        if self.first_loss is None:
            self.first_loss = self.last_loss

    def close(self) -> None:
        with writing(self._path):  # a line that found no space is tried once more
            self._file.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The file's whole lines; a crash may have left half a line at its end."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


class RecordReader:
    """Reads the records that another thread appends to `metrics.jsonl`, each once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self, most: int, after_step: int) -> list[dict[str, Any]]:
        """At most so many of the next whole lines, without those up to `after_step`."""
        records: list[dict[str, Any]] = []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while len(records) < most:
                line = file.readline()
                if not line.endswith(b"\n"):  # its end, or a line that is being written
                    break
                record = json.loads(line)
                if record["step"] > after_step:
                    records.append(record)
                self._offset = file.tell()
        return records


def points_over_steps(records: Records, name: str) -> list[tuple[int, float]]:
    """Steps and values of a metric, where it is finite."""
    points = [(record["step"], record[name]) for record in records if name in record]
    return [(step, value) for step, value in points if is_finite(value)]


def is_finite(value: object) -> TypeGuard[float]:
    """Whether it is a number, and neither nan nor infinite."""
    return isinstance(value, int | float) and math.isfinite(value)


def mean_over_steps(records: Records, name: str) -> float | None:
    """Over all steps; None where no record has it. A record is the mean of the steps before it."""
    pairs = _weighted(records, name)
    steps = sum(weight for weight, _ in pairs)
    return sum(weight * value for weight, value in pairs) / steps if steps else None


def total_over_steps(records: Records, name: str) -> int:
    """Of a count per step."""
    return round(sum(weight * value for weight, value in _weighted(records, name)))


def _weighted(records: Records, name: str) -> list[tuple[int, float]]:
    """Steps that a record stands for, and its value."""
    before, pairs = 0, []
    for record in records:
        if is_finite(record.get(name)):
            pairs.append((record["step"] - before, record[name]))
        before = record["step"]
    return pairs


def highest(records: Records, name: str) -> int:
    """Of a count since the run began; 0 where no record has it."""
    return int(max((value for _, value in points_over_steps(records, name)), default=0))
