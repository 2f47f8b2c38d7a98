"""Features on disk, as safetensors: extracted once per encoder, geometry and set of videos.

A file is named by a digest of all that its content follows from, and holds that digest: so what
belongs to other weights or videos is never taken for these. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tats_ray.errors import FeatureCacheError
from tats_ray.evaluation.features import ExtractionPlan, VideoFeatures
from tats_ray.storage import replacing

_FORMAT = 2  # raise it when the same plan gives other features
_ENCODER = ("patch_embedding.", "encoder.")
_GEOMETRY = {"frames", "stride", "size", "stored_height", "stored_width", "decoder"}
_BEHIND_THE_ENCODER = {"decoder", "target", "motion_target", "feature_target"}


def feature_key(plan: ExtractionPlan) -> str:
    """Digest of weights, geometry, views, layer, and of every video's path, size and time of
    change."""
    weights = hashlib.sha256()
    for name in sorted(plan.weights):
        if name.startswith(_ENCODER):
            weights.update(name.encode())
            weights.update(np.ascontiguousarray(plan.weights[name]).data)
    videos = [
        [row["path"], row["width"], row["height"], *_file_state(row["path"])]
        for row in plan.manifest.select(["path", "width", "height"]).to_pylist()
    ]
    content = {
        "format": _FORMAT,
        "weights": weights.hexdigest(),
        "model": plan.model.model_dump(exclude=_BEHIND_THE_ENCODER),
        "data": plan.data.model_dump(include=_GEOMETRY),
        "views": plan.views,
        "layer": plan.layer,
        "pool": [*plan.pool, plan.change],
        "videos": videos,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_features(folder: Path, key: str, videos: int) -> VideoFeatures | None:
    """Cached features of so many videos, or None where there are none of this key.

    Raises:
        FeatureCacheError: the file is of this key, but damaged.
    """
    file = cache_file(folder, key)
    if not file.exists():
        return None
    try:
        with safe_open(file, "numpy") as stored:
            about: dict[str, str] = stored.metadata() or {}
            if about.get("key") != key:
                return None
            features = stored.get_tensor("features")
        missing: dict[str, str] = json.loads(about["missing"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise _damaged(file, str(error)) from None
    if len(features) != videos or _digest(features) != about.get("digest"):
        raise _damaged(file, "its content is not what was written")
    if not np.isfinite(features).all():
        raise _damaged(file, "it holds values that are not finite")
    return VideoFeatures(features, missing)


def write_features(folder: Path, key: str, found: VideoFeatures) -> None:
    """Writes the features so that a file that exists is complete.

    Raises:
        StorageError: disk full or read-only.
    """
    about = {"key": key, "digest": _digest(found.features), "missing": json.dumps(found.missing)}
    with replacing(cache_file(folder, key)) as aside:
        save_file({"features": found.features}, aside, metadata=about)


def cache_file(folder: Path, key: str) -> Path:
    return folder / f"{key[:24]}.safetensors"


def _file_state(path: str) -> list[Any]:
    """Size and time of change: a repaired or re-encoded video has other features."""
    try:
        state = Path(path).stat()
    except OSError:
        return [None, None]
    return [state.st_size, state.st_mtime_ns]


def _digest(features: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(features).data).hexdigest()


def _damaged(file: Path, reason: str) -> FeatureCacheError:
    return FeatureCacheError(
        f"{file}: is damaged ({reason}); delete it, and the features are extracted again"
    )
