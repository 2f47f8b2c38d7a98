"""Something is killed every few seconds; the run ends where an undisturbed one ends."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter

import numpy as np
import psutil
import pytest

from tests.conftest import tiny_config
from tests.iterations import drive, drive_serially, pretraining, ray_executor, starting_point
from tests.processes import workers

STEPS = int(os.environ.get("TATS_RAY_KILLER_STEPS", "600"))
EVERY = float(os.environ.get("TATS_RAY_KILLER_SECONDS", "15"))  # between two kills

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.timeout(300 + 2 * STEPS),
]


class Killer(threading.Thread):
    """Ends a random rollout worker, Train worker or decode worker now and then."""

    KINDS = ("MaskingEnvRunner", "RayTrainWorker", "MapBatches")

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.killed: Counter[str] = Counter()
        self._random = random.Random(0)

    def run(self) -> None:
        while not self.done.wait(EVERY):
            kind = self._random.choice(self.KINDS)
            while not self.done.is_set() and not self._kill(kind):
                time.sleep(0.01)  # decode workers come and go

    def _kill(self, kind: str) -> bool:
        found = workers(kind)
        if not found:
            return False
        try:
            self._random.choice(found).kill()
        except psutil.NoSuchProcess:
            return False
        self.killed[kind] += 1
        return True


def test_a_killer_changes_nothing(synthetic, tmp_path):
    """In lockstep every round is drawn from numbered noise, and lost steps are replayed, so that
    the weights are the very ones of one process without Ray."""
    config = tiny_config(
        "cluster.mode=local", f"train.steps={STEPS}", "rl.staleness=0", "rl.rollout_workers=2",
        "rl.rollout_clips=2", "rl.max_worker_restarts=1000", "train.max_failures=1000",
        "data.prefetch_blocks=2",
    )  # fmt: skip
    _, wanted, cursor = drive_serially(config, synthetic.train, STEPS)
    opening = ray_executor(pretraining(config, synthetic.train), starting_point(tmp_path))
    killer = Killer()
    killer.start()
    started = time.monotonic()
    try:
        reports, got, after = drive(opening, STEPS)
    finally:
        killer.done.set()
        killer.join()
    print(f"{dict(killer.killed)} killed in {time.monotonic() - started:.0f} s")
    assert sum(killer.killed.values()) >= 3
    assert list(reports) == list(range(1, STEPS + 1))
    assert after == cursor
    for part in ("mae", "mae_optimizer"):
        for name, value in wanted[STEPS].trainer.files[part].items():
            assert np.array_equal(got[STEPS].trainer.files[part][name], value), name
    for name, value in wanted[STEPS].policy.sampler.items():
        assert np.array_equal(got[STEPS].policy.sampler[name], value), name
