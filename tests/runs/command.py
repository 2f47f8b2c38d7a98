"""The pre-training command as a user runs it, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12
STARTED: list[subprocess.Popen] = []  # by the tests of this process


class Run:
    """One run directory and the command that works on it."""

    def __init__(self, synthetic, output: Path, name: str, *overrides: str) -> None:
        self.path = output / name
        self.output = output
        # Checkpoints fall into the middle of logging intervals.
        places = {
            "run.output_dir": output, "run.name": name, "data.manifest": synthetic.train,
            "data.held_out_manifest": synthetic.held_out, "checkpoint.interval": 3,
        }  # fmt: skip
        self.command = [
            sys.executable, "jobs/pretrain.py", *TINY,
            *(f"{key}={value}" for key, value in places.items()), *overrides,
        ]  # fmt: skip

    def start(self, *flags: str, **how) -> subprocess.Popen:
        """Args: how: further arguments of Popen."""
        process = subprocess.Popen(
            [*self.command, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **how,
        )  # fmt: skip
        STARTED.append(process)
        return process

    def finish(self, *flags: str, seconds: float = 600) -> str:
        process = self.start(*flags)
        output, _ = process.communicate(timeout=seconds)
        assert process.returncode == 0, output
        return output

    def wait_for(self, what: str, process: subprocess.Popen, known: Iterable[Path] = ()) -> None:
        """Until a file of the run exists that is none of the `known` ones."""
        deadline = time.monotonic() + 600  # of a machine that is busy otherwise
        while not set(self.path.glob(what)) - set(known):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def summary(self) -> dict:
        return json.loads((self.path / "summary.json").read_text())

    def weights(self, step: int = STEPS) -> dict[str, np.ndarray]:
        folder = self.path / "checkpoints" / f"step_{step:08d}"
        return {
            f"{name}/{key}": value
            for name in ("mae", "mae_optimizer", "sampler", "sampler_optimizer")
            for key, value in load_file(folder / f"{name}.safetensors").items()
        }
