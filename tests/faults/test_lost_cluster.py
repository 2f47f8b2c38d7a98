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


@pytest.mark.parametrize(
    ("victim", "moment"),
    [("gcs_server", "start"), ("raylet", "middle")],  # each daemon and each moment once
)
def test_a_lost_cluster_is_one_line(whole, synthetic, tmp_path, victim, moment):
    run = Run(synthetic, tmp_path, "lost", *SETTINGS, *RAY)
    process = run.start()
    if moment == "start":
        wait_for(lambda: workers("RayTrainWorker", process.pid), "Train worker", 200)
    else:
        run.wait_for("checkpoints/step_00000003/progress.json", process)
    family = psutil.Process(process.pid).children(recursive=True)
    daemons = [one for one in family if one.name() == victim]
    daemons[0].kill()
    output, _ = process.communicate(timeout=100)
    (line,) = [line for line in output.splitlines() if not line.startswith(("step ", "/", " "))]
    assert line.startswith(f"error: Ray's {victim} died, and the local cluster with it")
    assert "Traceback" not in output
    assert process.returncode == 1
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    run.finish("cluster.mode=serial")  # any mode continues a run, this one soonest
    same_result(whole, run)
