"""`<run.output_dir>/<run.name>`: what a run leaves behind, and what a restart may continue."""

from __future__ import annotations

import fcntl
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tats_ray.config import dump_config
from tats_ray.config.job import JobConfig
from tats_ray.config.load import flatten, read_yaml, validate_as
from tats_ray.errors import RunDirectoryError, TooManyBrokenVideosError
from tats_ray.storage import replacing, writing
from tats_ray.training.checkpoint import clean_up

# What may differ between the parts of one run: it changes where and how the run executes, but
# neither what is computed nor in which order.
_FREE = (
    "cluster.", "tracking.", "checkpoint.", "rl.rollout_workers", "rl.learners",
    "rl.rollout_seconds", "rl.max_worker_restarts", "train.workers", "train.max_failures",
    "train.snapshot_interval",
    "run.output_dir", "data.prefetch_blocks", "data.decode_seconds",
    "data.broken_share",
)  # fmt: skip


_DOCUMENTS = ("run.json", "summary.json", "quarantine.json")
_MEND = "bring it back from a copy, or use another run.name"


class RunDirectory:
    """Files of one run, locked while a process works on it."""

    def __init__(self, config: JobConfig) -> None:
        self.config = config
        self.path = config.output_dir / config.run.name
        self.checkpoints = self.path / "checkpoints"
        self.pictures = self.path / "pictures"
        self.mask_history = self.path / "mask_history.npz"
        self.metrics = self.path / "metrics.jsonl"
        self.ray_train = self.path / "ray_train"
        self.config_file = self.path / "config.yaml"
        self._identity, self._summary, self._quarantine = (self.path / n for n in _DOCUMENTS)
        self.nonfinite = self.path / "nonfinite.jsonl"
        self._lock: Any = None
        self._writing = threading.Lock()

    def open(self, manifest: Path, *, must_exist: bool) -> None:
        """Creates the directory, or checks that it holds the same run.

        Raises:
            RunDirectoryError: another process works on it, or another run is in it.
            StorageError: it cannot be written to.
        """
        if must_exist and not self.config_file.exists():
            raise RunDirectoryError(
                f"{self.path}: holds no run to resume; start it without --resume"
            )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with writing(self.path / ".lock"):
            self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirectoryError(
                f"{self.path}: another process works on this run; use another run.name"
            ) from None
        self._clean_up()
        digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
        if self.config_file.exists():
            self._check_same(digest)
        write_text(self.config_file, dump_config(self.config))
        key = self.identity().get("key", uuid.uuid4().hex)
        self.update_identity(manifest_sha256=digest, key=key)

    def close(self) -> None:
        """Gives the directory free; the lock also goes with the process."""
        if self._lock is not None:
            self._lock.close()

    @contextmanager
    def opened(self, manifest: Path, *, must_exist: bool) -> Iterator[None]:
        """Open while a job works on it; broken videos that end the job are quarantined.

        Raises: as `open`.
        """
        self.open(manifest, must_exist=must_exist)
        try:
            yield
        except TooManyBrokenVideosError as error:
            self.write_quarantine(self.quarantine() | error.reasons)
            raise
        finally:
            self.close()

    def identity(self) -> dict[str, Any]:
        """What ties the parts of a run together: a key of its own, MLflow run id, manifest digest,
        and whether MLflow has everything."""
        return read_json(self._identity)

    def update_identity(self, **values: Any) -> None:
        """Changes values; may be called from any thread."""
        with self._writing:
            write_text(self._identity, json.dumps(self.identity() | values, indent=2))

    def summary(self) -> dict[str, Any]:
        """The summary of a finished run; empty before its end."""
        return read_json(self._summary)

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_text(self._summary, json.dumps(summary, indent=2))

    def quarantine(self) -> dict[str, str]:
        """Broken videos of earlier parts, path -> reason."""
        return read_json(self._quarantine)

    def write_quarantine(self, reasons: dict[str, str]) -> None:
        write_text(self._quarantine, json.dumps(reasons, indent=2))

    def record_nonfinite(self, what: str, paths: list[str]) -> None:
        """Appends a step that was not finite, with the videos of its clips."""
        with writing(self.nonfinite), self.nonfinite.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "videos": paths}) + "\n")

    def _clean_up(self) -> None:
        """Clears away what a killed process of this run was writing."""
        written = (self.config_file, self.metrics, self.mask_history)
        for name in (*(file.name for file in written), *_DOCUMENTS):
            stem, suffix = name.split(".")
            for left in self.path.glob(f".{stem}.*.{suffix}"):
                with writing(left):
                    left.unlink()
        clean_up(self.checkpoints)

    def _check_same(self, digest: str) -> None:
        stored = flatten(validate_as(type(self.config), read_yaml(self.config_file)).model_dump())
        asked = flatten(self.config.model_dump())
        for key, value in asked.items():
            if value != stored.get(key) and not key.startswith(_FREE):
                raise RunDirectoryError(
                    f"{self.path}: was started with {key}={stored.get(key)}, not {value}; "
                    "use another run.name, or the old value to continue"
                )
        if self.identity().get("manifest_sha256", digest) != digest:
            raise RunDirectoryError(
                f"{self.path}: the manifest has changed since the run started, and with it the "
                "order of the data; use another run.name"
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run directory; empty where there is none.

    Raises:
        RunDirectoryError: it is damaged; names the file and the remedy.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error}); {_MEND}") from None
    if not isinstance(content, dict):
        raise RunDirectoryError(f"{path}: is not a JSON object; {_MEND}")
    return content


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step."""
    with replacing(path) as aside:
        aside.write_text(text)
