"""Whatever Ray process of a run is killed, and whenever, from its first second on: the run ends
where an undisturbed one ends."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections import Counter

import numpy as np
import psutil
import pytest

from tats_ray.tracking.metrics_file import read_records
from tests.processes import workers
from tests.runs.command import Run

SECONDS = float(os.environ.get("TATS_RAY_KILLER_SECONDS", "60"))  # of killing
# Seconds between two kills, on average.
EVERY = float(os.environ.get("TATS_RAY_KILLER_EVERY", "15"))
SEED = int(os.environ.get("TATS_RAY_KILLER_SEED", "0"))
STEPS = max(150, int(SECONDS * 2))  # the run must outlast the killer
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # the raylet ends with them

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("ordinary_environment"),
    pytest.mark.timeout(600 + 4 * SECONDS),
]

# Each step is drawn from numbered noise, and what was lost is replayed.
SETTINGS = [
    "cluster.mode=local", "cluster.object_store_mb=200", f"train.steps={STEPS}",
    "checkpoint.interval=20", "data.prefetch_blocks=2", "rl.staleness=0", "rl.rollout_workers=2",
    "rl.rollout_clips=2", "rl.learners=1", "rl.max_worker_restarts=1000", "train.workers=2",
    "train.max_failures=1000", "train.snapshot_interval=1",
]  # fmt: skip


class Killer(threading.Thread):
    """Ends one process after the other at random moments, of the kind that was hit least."""

    KINDS = (
        "MaskingEnvRunner", "RayTrainWorker", "TrainController", "_WrappedExecutable", "Hub",
        "MapBatches", "",
    )  # fmt: skip

    def __init__(self, process: subprocess.Popen) -> None:
        super().__init__(daemon=True)
        self.killed: Counter[str] = Counter()
        self._process = process
        self._random = random.Random(SEED)

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            time.sleep(self._random.uniform(0, 2 * EVERY))
            kinds = self._random.sample(self.KINDS, len(self.KINDS))
            for kind in sorted(kinds, key=lambda kind: self.killed[kind or "any"]):
                if self._kill_within(kind, seconds=EVERY / 5):
                    break

    def _kill_within(self, kind: str, seconds: float) -> bool:
        """A kind may be starting anew, or work for moments only."""
        patience = time.monotonic() + seconds
        while not self._kill(kind):
            if time.monotonic() >= patience or self._process.poll() is not None:
                return False
            time.sleep(0.005)
        return True

    def _kill(self, kind: str) -> bool:
        try:
            victim = self._random.choice(workers(kind, self._process.pid))
            title = " ".join(victim.cmdline()).strip()
            if title in AGENTS:
                return False
            victim.kill()
        except (IndexError, psutil.NoSuchProcess):
            return False
        print(f"{time.strftime('%X')} killed {title}")
        self.killed[kind or "any"] += 1
        return True


def test_a_killer_changes_nothing(synthetic, tmp_path):
    whole = Run(synthetic, tmp_path, "whole", *SETTINGS)
    whole.finish(seconds=600 + 2 * SECONDS)
    run = Run(synthetic, tmp_path, "killed", *SETTINGS)
    process = run.start()
    killer = Killer(process)
    killer.start()
    started = time.monotonic()
    output, _ = process.communicate()
    killer.join()
    print(output)
    print(f"{dict(killer.killed)} killed in {time.monotonic() - started:.0f} s")
    assert process.returncode == 0
    assert sum(killer.killed.values()) >= SECONDS / EVERY / 3
    assert "Traceback" not in output
    wanted = read_records(whole.path / "metrics.jsonl")
    got = read_records(run.path / "metrics.jsonl")
    assert [record["step"] for record in got] == [record["step"] for record in wanted]
    assert [record["loss"] for record in got] == [record["loss"] for record in wanted]
    for name, value in whole.weights(STEPS).items():
        assert np.array_equal(run.weights(STEPS)[name], value), name
