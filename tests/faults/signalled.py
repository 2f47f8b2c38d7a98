"""Runs of the pre-training command that are sent signals, and what must be left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import numpy as np
import psutil

from tats_ray.tracking.metrics_file import read_records
from tats_ray.training.checkpoint import checkpoints, read_progress, read_state
from tests.runs.command import Run

ALL_STEPS = 32
EPOCH = 5  # steps: 20 videos in batches of 4
SETTINGS = [
    "train.batch_size=4", f"train.steps={ALL_STEPS}", "checkpoint.interval=1",
    "tracking.mlflow=false", "rl.staleness=0",
]  # fmt: skip
RAY = ["cluster.mode=local", "cluster.object_store_mb=200"]
MODES = {"serial": [], "ray": RAY}
PROMISED_SECONDS = 30


def kill_while_it_writes(run: Run, process: subprocess.Popen, step: int) -> None:
    """SIGKILL while the checkpoint of a step is half written.

    From its first new checkpoint on (for step 1 from its lock on), the process is let run for a
    millisecond at a time and looked at while it stands still, so that the write, which takes a few
    milliseconds, cannot be missed.
    """
    folder = run.path / "checkpoints"
    known = list(folder.glob("step_*"))  # a process that has only just begun writes none yet
    run.wait_for("checkpoints/step_*" if step > 1 else ".lock", process, known)
    handle = psutil.Process(process.pid)
    while True:
        process.send_signal(signal.SIGSTOP)
        while handle.status() != psutil.STATUS_STOPPED:
            time.sleep(0.0001)
        if list(folder.glob(f".step_{step:08d}.*")):
            process.kill()
            process.wait()
            return
        assert not (folder / f"step_{step:08d}").exists(), "the write was over before it was seen"
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)


def signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    """As `timeout` does: to the command, and to its process group once more."""
    process.send_signal(number)
    os.killpg(process.pid, number)


def exits_in_time(process: subprocess.Popen) -> str:
    """The output of a command that was asked to stop; it has the promised time."""
    started = time.monotonic()
    output, _ = process.communicate(timeout=PROMISED_SECONDS)
    assert process.returncode == 0, output
    assert "Traceback" not in output, output
    assert "SIGTERM received" not in output, output
    print(f"left after {time.monotonic() - started:.1f} s")
    return output


def newest_step(run: Run) -> int:
    """Step of the newest checkpoint, all of which must load; 0 where there is none."""
    found = checkpoints(run.path / "checkpoints")
    for checkpoint in found:
        assert read_state(checkpoint).step == read_progress(checkpoint).step
    return read_progress(found[-1]).step if found else 0


def same_result(whole: Run, run: Run) -> None:
    """Weights bit for bit, each record once, the cursor; nothing half written lies about."""
    assert run.summary()["steps"] == ALL_STEPS
    wanted, got = whole.weights(ALL_STEPS), run.weights(ALL_STEPS)
    assert wanted.keys() == got.keys()
    assert [key for key in wanted if not np.array_equal(wanted[key], got[key])] == []
    records = [
        [(record["step"], record["loss"]) for record in read_records(one.path / "metrics.jsonl")]
        for one in (whole, run)
    ]
    assert records[0] == records[1]
    progress = [read_progress(checkpoints(one.path / "checkpoints")[-1]) for one in (whole, run)]
    assert progress[0].cursor == progress[1].cursor
    assert progress[0].clips == progress[1].clips == 4 * ALL_STEPS
    hidden = {file.name for file in run.path.glob("**/.*")}
    assert hidden <= {".lock", ".validate_storage_marker"}, hidden
    assert not (run.path / "quarantine.json").exists(), "no video was broken"
