"""Something-Something V2: `something-something-v2-{train,validation,test}.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tats_ray.data.datasets.annotation import Entry, first_present, plain_name, read_annotation
from tats_ray.errors import ManifestError


def ssv2_entries(file: Path, videos: Path, labels: Path | None = None) -> list[Entry]:
    """Videos `videos/<id>.webm`, or `.mp4` where they were re-encoded.

    The class is the template without its brackets. A file in which no entry has a template is a
    test set, whose videos have no class.

    Args:
        labels: the official labels.json; every class must stand in it.

    Raises:
        ManifestError: names the file and the place in it.
    """
    records = _read(file, list)
    known = None if labels is None else _read(labels, dict)
    labelled = any(isinstance(record, dict) and "template" in record for record in records)
    entries = []
    for number, record in enumerate(records, start=1):
        origin = f"{file}: entry {number}"
        name = plain_name(origin, "id", _text(origin, record, "id"))
        label = None
        if labelled:
            template = _text(origin, record, "template")
            label = template.replace("[", "").replace("]", "").strip()
        if known is not None and label is not None and label not in known:
            raise ManifestError(f"{origin}: class '{label}' is not in {labels}; give its labels")
        path = first_present(videos / f"{name}.webm", videos / f"{name}.mp4")
        entries.append(Entry(path, label, origin))
    return entries


def _read(file: Path, kind: type) -> Any:
    try:
        content = json.loads(read_annotation(file))
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"{file}:{error.lineno}: is not JSON ({error.msg}); download it again"
        ) from None
    if not isinstance(content, kind) or not content:
        form = "[{...}, ...]" if kind is list else '{"class": "number", ...}'
        raise ManifestError(f"{file}: must hold {form}, as the official file does")
    return content


def _text(origin: str, record: Any, field: str) -> str:
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise ManifestError(f"{origin}: '{field}' must be a text; take the official file")
    return value
