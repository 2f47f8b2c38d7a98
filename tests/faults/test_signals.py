"""The driver killed, terminated and interrupted: at a checkpoint's write, at an epoch's end, at the
last step, before the first; alone and with its whole process group."""

from __future__ import annotations

import signal
import subprocess

import psutil
import pytest

from tests.faults.signalled import (
    ALL_STEPS,
    EPOCH,
    MODES,
    RAY,
    SETTINGS,
    exits_in_time,
    kill_while_it_writes,
    newest_step,
    same_result,
    signal_group,
)
from tests.runs.command import Run

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("ordinary_environment"),
    pytest.mark.timeout(1200),
]


@pytest.mark.parametrize(
    ("mode", "step"),
    [
        ("serial", 1),
        ("serial", EPOCH),
        ("serial", EPOCH + 1),
        ("serial", ALL_STEPS),
        ("ray", EPOCH),
    ],
)
def test_killed_at_a_checkpoints_write(whole, synthetic, tmp_path, mode, step):
    run = Run(synthetic, tmp_path, "killed", *SETTINGS, *MODES[mode])
    kill_while_it_writes(run, run.start(), step)
    assert newest_step(run) == step - 1
    assert not (run.path / "summary.json").exists()
    output = run.finish()
    assert ("continuing" in output) == (step > 1)
    assert run.summary()["resumed_from"] == (step - 1 or None)
    same_result(whole, run)


@pytest.mark.parametrize("mode", MODES)
def test_killed_behind_the_last_checkpoint(whole, synthetic, tmp_path, mode):
    """All steps are done and stored, but not the summary: no step is done twice."""
    run = Run(synthetic, tmp_path, "last", *SETTINGS, *MODES[mode])
    process = run.start()
    run.wait_for(f"checkpoints/step_{ALL_STEPS:08d}/progress.json", process)
    process.kill()
    process.wait()
    (run.path / "summary.json").unlink(missing_ok=True)  # it may have been that quick
    run.finish()
    assert run.summary()["resumed_from"] == ALL_STEPS
    same_result(whole, run)


@pytest.mark.parametrize(
    ("mode", "number"),
    [("serial", signal.SIGTERM), ("serial", signal.SIGINT), ("ray", signal.SIGINT)],
)
def test_a_signal_to_the_process_group(whole, synthetic, tmp_path, mode, number):
    """Ctrl-C in a terminal, a scheduler's SIGTERM: decoders, Ray's daemons and its workers are the
    command's children. Then a signal to the same command as it starts again."""
    run = Run(synthetic, tmp_path, "stopped", *SETTINGS, *MODES[mode])
    process = run.start(process_group=0)
    run.wait_for("checkpoints/step_0000000[2-9]", process)
    signal_group(process, number)
    assert "asked to stop" in exits_in_time(process)
    stopped_at = newest_step(run)
    assert 2 <= stopped_at < ALL_STEPS
    again = run.start(process_group=0)
    while "continuing" not in again.stdout.readline():
        assert again.poll() is None
    signal_group(again, number)
    exits_in_time(again)
    assert newest_step(run) >= stopped_at
    run.finish("--resume")
    same_result(whole, run)


@pytest.mark.parametrize("phase", [".lock", "ray_train", "raylet"])
def test_a_signal_before_the_first_step(whole, synthetic, tmp_path, phase):
    """While the held-out clips are decoded, Ray starts, workers come up.

    Code of Ray may swallow the interrupt; the run then ends where it would begin its first step.
    """
    run = Run(synthetic, tmp_path, "early", *SETTINGS, *RAY)
    process = run.start(process_group=0)
    if phase == "raylet":
        run.wait_for(".lock", process)
        _wait_for_child(process, "raylet")
    else:
        run.wait_for(phase, process)
    signal_group(process, signal.SIGTERM)
    said = exits_in_time(process)
    assert "stopped as requested" in said or "asked to stop: finishing step 0" in said
    assert newest_step(run) == 0
    run.finish()
    same_result(whole, run)


def _wait_for_child(process: subprocess.Popen, name: str) -> None:
    parent = psutil.Process(process.pid)
    while not any(child.name() == name for child in parent.children(recursive=True)):
        assert process.poll() is None, process.stdout.read()
