"""What a run costs before its first step and behind its last one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tats_ray.benchmarks.results import Figure
from tats_ray.errors import ComponentFailedError

_COMMAND = "import sys; from tats_ray.cli.train import pretrain_main; sys.exit(pretrain_main())"


@dataclass(frozen=True)
class Start:
    """One command of two steps, by the clock but for `cpu`, which counts all processes of the
    machine.

    Attributes:
        first_line: seconds until it says something.
        whole: seconds until it is gone.
    """

    first_line: float
    whole: float
    cpu: float


def measure_startup(words: list[str], repeats: int) -> dict[str, Figure]:
    """Figures of a serial run and of one on local Ray.

    Args:
        words: arguments of jobs/pretrain.py; the run is cut to two steps.

    Raises:
        ComponentFailedError: a run failed.
    """
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as folder:
        _run(words, Path(folder), "serial", "warm-up")  # makes the synthetic set
        for mode in ("serial", "local"):
            starts = [_run(words, Path(folder), mode, f"{mode}{i}") for i in range(repeats)]
            for name in ("first_line", "whole", "cpu"):
                values = np.array([getattr(start, name) for start in starts])
                figures[f"{mode}/{name}"] = Figure.of(values, "s")
    return figures


def _run(words: list[str], folder: Path, mode: str, name: str) -> Start:
    settings = [
        f"run.name={name}", f"run.output_dir={folder}", f"cluster.mode={mode}", "train.steps=2",
        "train.epochs=null", "train.warmup_steps=0", "tracking.enrichment_interval=null",
    ]  # fmt: skip
    begun, used = time.monotonic(), _busy()
    command = [sys.executable, "-c", _COMMAND, *words, *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        first_line = time.monotonic() - begun
        said += process.stdout.read()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        raise ComponentFailedError(f"the run to time failed: {' '.join(last)}")
    return Start(first_line, time.monotonic() - begun, _busy() - used)


def _busy() -> float:
    """Seconds that all CPUs of the machine were busy (proc(5): user, nice and system time)."""
    ticks = Path("/proc/stat").read_text(encoding="ascii").split()[1:4]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
