"""What a run costs before its first step and behind its last one, and for each clip between."""

from __future__ import annotations

import itertools
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
_STEPS = 2


@dataclass(frozen=True)
class Start:
    """One command, by the clock but for `cpu`, which counts all processes of the machine.

    Attributes:
        first_line: seconds until it says something.
        whole: seconds until it is gone.
    """

    first_line: float
    whole: float
    cpu: float


def measure_startup(words: list[str], repeats: int, more_steps: int | None) -> dict[str, Figure]:
    """Figures of serial runs of two steps and of such runs on local Ray, in turn.

    Args:
        words: arguments of tats-ray pretrain, but for the number of steps.
        more_steps: by which other runs are longer, which shows the CPU time of a step; None: none.

    Raises:
        ComponentFailedError: a run failed.
    """
    steps = [_STEPS] if more_steps is None else [_STEPS, _STEPS + more_steps]
    found: dict[tuple[str, int], list[Start]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _run(words, Path(folder), "serial", _STEPS, "warm-up")  # makes the synthetic set
        for repeat in range(repeats):
            for mode, count in itertools.product(("serial", "local"), steps):
                start = _run(words, Path(folder), mode, count, f"{mode}{count}-{repeat}")
                found.setdefault((mode, count), []).append(start)
    figures: dict[str, Figure] = {}
    for mode in ("serial", "local"):
        short = found[mode, _STEPS]
        for name in ("first_line", "whole", "cpu"):
            values = np.array([getattr(start, name) for start in short])
            figures[f"{mode}/{name}"] = Figure.of(values, "s")
        if more_steps is not None:
            longer = found[mode, steps[-1]]
            cost = [(long.cpu - start.cpu) / more_steps
                    for long, start in zip(longer, short, strict=True)]  # fmt: skip
            figures[f"{mode}/step"] = Figure.of(np.array(cost), "CPU-s")
    return figures


def _run(words: list[str], folder: Path, mode: str, steps: int, name: str) -> Start:
    settings = [
        f"run.name={name}", f"run.output_dir={folder}", f"cluster.mode={mode}",
        f"train.steps={steps}", "train.epochs=null", "train.warmup_steps=0",
        "tracking.enrichment_interval=null",
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
