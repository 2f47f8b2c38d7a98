"""Ray's daemons are killed: one line, no process left, and the command continues."""

from __future__ import annotations

import psutil
import pytest

from tests.faults.signalled import RAY, SETTINGS, same_result
from tests.processes import wait_for, workers
from tests.runs.command import Run

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("ordinary_environment"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def whole(synthetic, tmp_path_factory):
    run = Run(synthetic, tmp_path_factory.mktemp("whole"), "whole", *SETTINGS)
    run.finish()
    return run


@pytest.mark.parametrize(
    ("victim", "moment"),
    [
        ("gcs_server", "start"),
        ("gcs_server", "middle"),
        ("raylet", "start"),
        ("raylet", "middle"),
        ("RuntimeEnvAgent", "middle"),  # the raylet ends with it
    ],
)
def test_a_lost_cluster_is_one_line(whole, synthetic, tmp_path, victim, moment):
    run = Run(synthetic, tmp_path, "lost", *SETTINGS, *RAY)
    process = run.start()
    if moment == "start":
        wait_for(lambda: workers("RayTrainWorker", process.pid), "Train worker", 200)
    else:
        run.wait_for("checkpoints/step_00000003/progress.json", process)
    family = psutil.Process(process.pid).children(recursive=True)
    daemons = [one for one in family if victim in (one.name(), one.cmdline()[0].split("::")[-1])]
    daemons[0].kill()
    output, _ = process.communicate(timeout=100)
    died = "gcs_server" if victim == "gcs_server" else "raylet"
    lines = [line for line in output.splitlines() if not line.startswith(("step ", "/", " "))]
    (line,) = [line for line in lines if line.startswith("error: ")]
    assert line.startswith(f"error: Ray's {died} died, and the local cluster with it")
    # A raylet that ends by itself gives its objects up first, of which Ray's core tells.
    assert len(lines) == 1 or victim == "RuntimeEnvAgent", lines
    assert "Traceback" not in output
    assert process.returncode == 1
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    run.finish("cluster.mode=serial")  # any mode continues a run, this one soonest
    same_result(whole, run)
