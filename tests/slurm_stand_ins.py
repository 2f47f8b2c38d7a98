"""Stand-ins for SLURM, Ray and Python that record what configs/cluster/slurm.sh asks of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60.0

# Runs the command once per task, as SLURM does on the nodes; each has its number.
_SRUN = """
echo "srun $*" >> "$RECORD/log"
for word; do case $word in --ntasks=*) tasks=${word#*=} ;; --*) ;; *) break ;; esac; shift; done
for number in $(seq "$tasks"); do NODE=$number "$@" & done
trap 'kill -TERM $(jobs -p) 2> /dev/null' TERM
wait
wait
"""
_SCONTROL = '[ "$*" = "show hostnames $SLURM_JOB_NODELIST" ] && printf "%b" "$HOSTS"'
_HOSTNAME = 'echo "10.0.0.1 192.168.0.1"'
# Joins, unless it is a node that fails or never comes, and stays until it is asked to end.
_RAY = """
case " $* " in *" --head "*) name=head ;; *) name=worker$NODE ;; esac
case $FAILS in "$name") echo "ray $name failed" >> "$RECORD/log"; exit 1 ;; esac
trap 'echo "ray $name ended" >> "$RECORD/log"; exit 0' TERM
[ "$ABSENT" = "$name" ] || touch "$RECORD/joined/$name"
while [ "$LOST" != "$name" ] || [ ! -e "$RECORD/driver" ]; do sleep 0.05; done
echo "ray $name lost" >> "$RECORD/log"
exit 1
"""
# The driver, or the question how many nodes have joined.
_PYTHON = """
if [ "$1" = -c ]; then ls "$RECORD/joined" | wc -l; exit; fi
trap 'echo "driver saved" >> "$RECORD/log"; exit 0' TERM
{
    echo "driver $*"
    echo "token $RAY_AUTH_MODE $(stat -c "%a %s" "$RAY_AUTH_TOKEN_PATH")"
    echo "variable ${RAY_AUTH_TOKEN:-none}"
} >> "$RECORD/log"
cp "$RAY_AUTH_TOKEN_PATH" "$RECORD/token"
touch "$RECORD/driver"
[ -z "$STAYS" ] || while true; do sleep 0.05; done
sleep 0.3
exit "$CODE"
"""


class Allocation:
    """Nodes of a job, of which the first runs the script."""

    def __init__(self, folder: Path, nodes: int, **behaviour: str) -> None:
        """
        Args:
            behaviour: FAILS, ABSENT or LOST=a node (`head`, `worker1`...); STAYS=1 for a driver
                that ends when it is asked to only, CODE=its exit code.
        """
        self.record = folder / "record"
        self.home = folder / "home"
        for made in (self.record / "joined", self.home, folder / "bin"):
            made.mkdir(parents=True)
        scripts = {"srun": _SRUN, "scontrol": _SCONTROL, "hostname": _HOSTNAME, "ray": _RAY}
        for name, script in {**scripts, "python": _PYTHON}.items():
            file = folder / "bin" / name
            file.write_text(f"#!/bin/bash\n{script}\n")
            file.chmod(0o755)
        self._environment = {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(self.home),
            "RECORD": str(self.record), "TATS_RAY_PYTHON": str(folder / "bin" / "python"),
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-9]", "SLURM_CPUS_ON_NODE": "16",
            "HOSTS": "".join(f"n{number}\\n" for number in range(1, nodes + 1)),
            "FAILS": "", "ABSENT": "", "LOST": "", "STAYS": "", "CODE": "0", **behaviour,
        }  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The script, as sbatch starts it: in a process group of its own."""
        return subprocess.Popen(
            [ROOT / "configs" / "cluster" / "slurm.sh", *arguments],
            cwd=ROOT, env=self._environment, text=True, process_group=0,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and stderr of the whole script."""
        return ended(self.start(*arguments))

    def lines(self, first: str = "") -> list[str]:
        """What was recorded, in its order, of lines that begin so."""
        log = self.record / "log"
        recorded = log.read_text().splitlines() if log.exists() else []
        return [line for line in recorded if line.startswith(first)]


def ended(script: subprocess.Popen[str]) -> tuple[int, str]:
    """Waits for the script; a hanging one is killed with what it started."""
    try:
        _, errors = script.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(script.pid, signal.SIGKILL)
        raise
    return script.returncode, errors


def until_there(file: Path) -> None:
    """Waits for a file."""
    deadline = time.monotonic() + SECONDS
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} did not appear"
        time.sleep(0.02)
