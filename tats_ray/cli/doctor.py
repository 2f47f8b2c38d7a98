"""`tats-ray doctor`: tries what a run needs on this machine, without starting Ray.

Each check prints lines `ok | warning | fails  NAME: what was found; remedy`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tats_ray import __version__
from tats_ray.cli.command_line import JobHelp, job_parser, run_guarded, use_threads
from tats_ray.cli.machine_checks import CHECKS, Finding
from tats_ray.config import Config, dump_config, load_config
from tats_ray.errors import TatsRayError, one_line

_TEXT = JobHelp(
    command="doctor",
    purpose="Check what a run needs on this machine, without starting Ray; exit code 1 where "
    "something fails.",
    example="tats-ray doctor run.output_dir=/data/runs",
    settings=Config,
    most_used=("run.output_dir", "data.motion.source", "train.precision",
               "cluster.object_store_mb", "tracking.mlflow"),
    names="recipe",
    remark="With the settings of a run it checks what that run needs.",
)  # fmt: skip


def doctor_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray doctor`; returns the exit code."""
    given = job_parser(_TEXT).parse_args(arguments)

    def job() -> int:
        config = load_config(given.config, ["run.name=doctor", *given.overrides])
        if given.dry_run:
            sys.stdout.write(dump_config(config))
            return 0
        use_threads(config.cluster.threads)
        _line(f"tats_ray {__version__} in {Path(__file__).parents[1]}")
        failures = sum(
            _report(name, finding)
            for name, check in CHECKS.items()
            for finding in _findings(check, config)
        )
        _line(f"{failures} of the checks failed" if failures else "nothing fails")
        return 1 if failures else 0

    return run_guarded(job)


def _report(name: str, finding: Finding) -> bool:
    """Prints a finding; returns whether it is a failure."""
    _line(f"{finding.grade:<8} {name}: {finding.text}")
    return finding.grade == "fails"


def _line(text: str) -> None:
    sys.stdout.write(one_line(text) + "\n")
    sys.stdout.flush()


def _findings(check: Callable[[Config], Iterator[Finding]], config: Config) -> Iterator[Finding]:
    """What a check finds; an error that it did not foresee is a failure of its own."""
    try:
        yield from check(config)
    except TatsRayError as error:
        yield Finding("fails", str(error))
    except Exception as error:
        yield Finding(
            "fails",
            f"{type(error).__name__}: {error}; reinstall the package that this names, or report "
            "the line where all packages are the ones of constraints.txt",
        )
