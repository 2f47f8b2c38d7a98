"""A machine of the cluster is lost in the middle of a run, and another one joins."""

from __future__ import annotations

import signal
import time

import pytest

from tats_ray.tracking.metrics_file import read_records
from tests.faults.nodes import Nodes
from tests.faults.signalled import newest_step
from tests.runs.command import Run

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("ordinary_environment"),
    pytest.mark.timeout(1200),
]

NODE_CPUS, STEPS = 4, 5000  # the test ends the run
# Two rollout workers never fit on one node. Blocks are too large to stay outside Ray's store, so
# decoded clips are lost with a node.
SHARES = [
    "cluster.rollout_worker_cpus=2.2", "cluster.train_worker_cpus=1.5", "cluster.decode_cpus=0.3",
    "rl.rollout_workers=2", "rl.rollout_clips=4", "rl.epochs=4", "data.block_clips=8",
    "data.stored_height=48", "data.stored_width=48", "tracking.log_interval=1",
    "tracking.mlflow=false", "checkpoint.interval=50", f"train.steps={STEPS}",
]  # fmt: skip


@pytest.fixture
def nodes(monkeypatch):
    made = Nodes()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def _wait_for_runners(run, process, count, after=0):
    """The first step behind `after` that so many rollout workers worked on."""
    deadline = time.monotonic() + 600
    while True:
        for record in read_records(run.path / "metrics.jsonl"):
            if record["step"] > after and record["rollout/workers"] == count:
                return record["step"]
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, f"never {count} rollout workers"
        time.sleep(0.1)


def test_a_lost_node_costs_actors_and_a_new_one_brings_them_back(nodes, synthetic, tmp_path):
    nodes.add_head(NODE_CPUS)
    second = nodes.add(NODE_CPUS)
    run = Run(
        synthetic, tmp_path, "nodes", *SHARES, "cluster.mode=address",
        f"cluster.address={nodes.address}",
    )  # fmt: skip
    process = run.start()
    both = _wait_for_runners(run, process, 2)
    nodes.lose(second)
    one = _wait_for_runners(run, process, 1, after=both)
    nodes.add(NODE_CPUS)
    again = _wait_for_runners(run, process, 2, after=one)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    steps = [record["step"] for record in read_records(run.path / "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))
    assert newest_step(run) == len(steps)
    assert not (run.path / "quarantine.json").exists(), "a lost node is no broken video"
    print(f"2 actors at step {both}, 1 at {one}, 2 at {again}, ended behind {len(steps)}")
