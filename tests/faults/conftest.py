"""Real disks, and the environment, for the tests of this folder."""

from __future__ import annotations

import pytest

from tests.faults.disk import SmallDisc
from tests.faults.signalled import SETTINGS

# Here, since the cluster's settings must be there before a test's module imports Ray.
from tests.ray.conftest import cluster  # noqa: F401
from tests.ray.environment import ENVIRONMENT
from tests.runs.command import STARTED, Run


@pytest.fixture(autouse=True)
def nothing_runs_on():
    """A failed test leaves no run that the following ones would share the machine with."""
    yield
    for process in STARTED:
        process.kill()  # nothing happens to one that has ended
        process.wait()
    STARTED.clear()


@pytest.fixture(scope="module")
def whole(synthetic, tmp_path_factory):
    """A run of the settings of `signalled`, in one process and undisturbed."""
    run = Run(synthetic, tmp_path_factory.mktemp("whole"), "whole", *SETTINGS)
    run.finish()
    return run


@pytest.fixture
def ordinary_environment(monkeypatch):
    """Without what tests/ray sets for the cluster of this process."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def disk_of(tmp_path):
    """Makes disks of so many KiB."""
    made: list[SmallDisc] = []

    def make(kib: int) -> SmallDisc:
        made.append(SmallDisc(tmp_path / f"disk{len(made)}", kib))
        return made[-1]

    yield make
    for disk in made:
        disk.remove()
