"""The MLflow run: parameters, metrics, config and pictures, from a thread of the driver.

Nothing here waits for the store but `finish`, and that for a limited time. Records are read from
`metrics.jsonl`, whatever the store has missed; everything else waits in a queue of limited length.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from tats_ray.config.job import TrackedConfig
from tats_ray.tracking.console import say
from tats_ray.tracking.interval import Record
from tats_ray.tracking.metrics_file import RecordReader
from tats_ray.tracking.mlflow_store import MLflowStore, metrics
from tats_ray.tracking.mlflow_warning import MLflowWarning

_MOST_JOBS = 1000
_RECORDS_AT_ONCE = 200
_STOP_SECONDS = 5.0  # schedulers wait half a minute at most before they kill
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between calls that fail

Job = Callable[[MLflowStore], None]


class TrackedRun(Protocol):
    """Where records go beside the run directory."""

    run_id: str | None

    def log(self, record: Record) -> None: ...

    def log_file(self, path: Path, folder: str) -> None: ...

    def finish(self, status: str) -> bool: ...


class UntrackedRun:
    """Nowhere: `tracking.mlflow` is false."""

    run_id: str | None = None

    def log(self, record: Record) -> None: ...

    def log_file(self, path: Path, folder: str) -> None: ...

    def finish(self, status: str) -> bool:
        return True


class MLflowRun:
    """One run of the tracking store, continued by id after a restart.

    `run_id` is None until the store has answered for the first time.
    """

    def __init__(
        self,
        config: TrackedConfig,
        run_id: str | None,
        *,
        key: str | None = None,
        records: Path | None = None,
        found: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        """Starts a run, or continues `run_id`, in the background.

        Args:
            run_id: of a run to continue; another run is made where the store does not know it.
            key: of the run, where it may be continued before its id is known.
            records: `metrics.jsonl`, which the store catches up from; None sends what `log` gets.
            found: called with the run's id, from the background, as soon as it is known.
        """
        self.run_id: str | None = run_id
        self._store = MLflowStore(config, run_id, key or uuid.uuid4().hex)
        self._wait_seconds = config.tracking.wait_seconds
        self._reader = None if records is None else RecordReader(records)
        self._found = found
        self._warning = MLflowWarning()
        self._changed = threading.Condition()
        self._fresh = True
        self._jobs: deque[Job] = deque()
        self._lost = False
        self._complete = False
        self._status: str | None = None
        self._given_up = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def wait_id(self) -> str | None:
        """The run's id; None where the store does not tell it within `tracking.wait_seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self.run_id is not None, self._wait_seconds)
        return self.run_id

    def log(self, record: Record) -> None:
        """A step that the store already has is not logged twice."""
        if self._reader is not None:  # it stands in the file
            self._hand_over(None)
            return
        line = {"step": record.step, **record.figures}
        self._hand_over(lambda store: store.log_records([line]))

    def log_result(self, step: int, figures: dict[str, float]) -> None:
        """Figures of a finished run, as `test/<name>`."""
        points = metrics({f"test/{name}": value for name, value in figures.items()}, step)
        self._hand_over(lambda store: store.log_metrics(points))

    def log_file(self, path: Path, folder: str) -> None:
        """Stores a file under a folder of the run's artifacts."""
        self._hand_over(lambda store: store.log_file(path, folder))

    def log_folder(self, path: Path, folder: str) -> None:
        """Stores those files of a directory that the folder of the run's artifacts lacks."""
        files = sorted(path.iterdir()) if path.is_dir() else []
        if files:
            self._hand_over(partial(_store_missing, files=files, folder=folder))

    def finish(self, status: str) -> bool:
        """Ends the run as FINISHED, KILLED or FAILED.

        Returns:
            Whether the store has everything; it has `tracking.wait_seconds` to take the rest, and
            less than that where the run was asked to stop.
        """
        seconds = min(self._wait_seconds, _STOP_SECONDS if status == "KILLED" else math.inf)
        with self._changed:
            self._status, self._fresh = status, True
            self._changed.notify_all()
        self._thread.join(seconds)
        with self._changed:
            self._given_up = True
            self._changed.notify_all()
        if not self._complete:
            say(
                f"MLflow has not taken everything within {seconds:g} s (tracking.wait_seconds); "
                "run the same command again to synchronise it"
            )
        return self._complete

    def _hand_over(self, job: Job | None) -> None:
        with self._changed:
            if job is not None and len(self._jobs) >= _MOST_JOBS:
                self._lost = True  # told at the end; the same command again sends it
            elif job is not None:
                self._jobs.append(job)
            self._fresh = True
            self._changed.notify_all()

    def _work(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._fresh or self._given_up)
                self._fresh = False
                ending = self._status
            if self._given_up:
                return
            try:
                self._send()
                if ending is not None and not self._given_up:
                    self._store.finish(ending)
                    self._complete = not self._lost
                    self._given_up = True
                self._warning.recovered()
                pause = _FIRST_PAUSE
            except Exception as error:  # of whatever kind: no store may stop a run
                self._warning.failed(error)
                self._rest(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _send(self) -> None:
        """Sends all there is; raises what the first failing call raises."""
        if not self._store.run_id:
            run_id = self._store.find()
            self._found(run_id)
            with self._changed:
                self.run_id = run_id
                self._changed.notify_all()
        if not self._store.ready:
            self._store.prepare()
        self._store.log_records([])  # what a failed call left
        while not self._given_up and self._reader is not None:
            records = self._reader.read(_RECORDS_AT_ONCE)
            if not records:
                break
            self._store.log_records(records)
        while self._jobs and not self._given_up:
            try:
                self._jobs[0](self._store)
            except Exception:
                self._jobs.rotate(-1)  # one that never works must not stop the others
                raise
            self._jobs.popleft()

    def _rest(self, seconds: float) -> None:
        """A pause before the next attempt; short where the run is ending."""
        with self._changed:
            self._fresh = True
            ending = self._status is not None
            seconds = _FIRST_PAUSE if ending else seconds
            self._changed.wait_for(
                lambda: self._given_up or (self._status is not None and not ending), seconds
            )


def _store_missing(store: MLflowStore, *, files: list[Path], folder: str) -> None:
    stored = store.stored_files(folder)
    for file in files:
        if file.name not in stored:
            store.log_file(file, folder)
