"""What the command lines of all jobs share: arguments, threads, and faults as one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from tats_ray.controller.signals import StopRequest
from tats_ray.errors import ConfigError, TatsRayError


def job_parser(
    description: str, epilog: str, *, needs_file: bool = False
) -> argparse.ArgumentParser:
    """What the command line of every configured job has."""
    parser = argparse.ArgumentParser(description=description, epilog=epilog)
    parser.add_argument("--config", metavar="FILE", required=needs_file, help="YAML file")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved config and leave"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    return parser


def require_settings(given: argparse.Namespace, example: str) -> None:
    """A job that is given nothing says how to begin.

    Args:
        example: command of a small run.

    Raises:
        ConfigError: there are neither a file nor settings.
    """
    if given.config is None and not given.overrides:
        raise ConfigError(f"there is nothing to run: begin with {example}; --help lists all flags")


def use_threads(threads: int) -> None:
    """Before torch is imported: one thread per process unless the job asks for more, since
    parallelism comes from processes."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def run_guarded(job: Callable[[], int], stop: StopRequest | None = None) -> int:
    """Runs a job; a fault of the user's becomes one line and an exit code.

    Args:
        stop: of a job whose same command goes on: being asked to stop is then no fault.
    """
    try:
        return job()
    except TatsRayError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        if stop is None or not stop.asked_once:
            return 130
        sys.stdout.write("stopped as requested; the same command continues from here\n")
        return 0
