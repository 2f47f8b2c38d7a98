"""`tats-ray scale RUN --rollout-workers N`."""

from __future__ import annotations

import sys
from pathlib import Path

from tats_ray.cli.command_line import command_parser, run_guarded
from tats_ray.errors import ConfigError, one_line


def scale_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray scale`; returns the exit code."""
    parser = command_parser(
        "scale",
        "Change the number of rollout workers of a run that is at work, from any node of its "
        "cluster.",
        "tats-ray scale runs/NAME --rollout-workers 8",
    )
    parser.add_argument("run", type=Path, help="directory of the run")
    parser.add_argument("--rollout-workers", type=int, required=True, metavar="N", help="wanted")
    given = parser.parse_args(arguments)
    return run_guarded(lambda: _scale(given.run, given.rollout_workers))


def _scale(run: Path, workers: int) -> int:
    if workers < 1:
        raise ConfigError(f"--rollout-workers: {workers} is less than one")
    from tats_ray.actors.requests import ask_for_workers

    ask_for_workers(run / "ray_train", run, workers)
    sys.stdout.write(one_line(f"{run}: asked for {workers} rollout workers") + "\n")
    return 0
