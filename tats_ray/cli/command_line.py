"""Command lines of the jobs: `--config FILE section.key=value ... [--dry-run] [--resume]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from tats_ray.config import dump_config, load_config
from tats_ray.controller.signals import StopRequest
from tats_ray.errors import TatsRayError


def pretrain_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/pretrain.py; returns the exit code."""
    parser = job_parser(
        "Pre-train a masked video autoencoder.",
        "Running the same command again continues an unfinished run.",
    )
    add_resume(parser)
    given = parser.parse_args(arguments)
    stop = StopRequest()
    return run_guarded(lambda: _pretrain(given, stop), stop)


def benchmark_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/benchmark.py; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Time training steps in this process, without Ray."
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file")
    parser.add_argument("--steps", type=int, default=10, help="timed steps per system")
    parser.add_argument("--systems", nargs="+", default=["random", "tats"])
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    given = parser.parse_intermixed_args(arguments)
    return run_guarded(lambda: _benchmark(given))


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


def add_resume(parser: argparse.ArgumentParser) -> None:
    """The flag of jobs that leave one run behind."""
    parser.add_argument(
        "--resume", action="store_true", help="fail unless there is a run to continue"
    )


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
        sys.stdout.write("stopped as asked; the same command goes on from here\n")
        return 0


def _pretrain(given: argparse.Namespace, stop: StopRequest) -> int:
    config = load_config(given.config, given.overrides)
    if given.dry_run:
        sys.stdout.write(dump_config(config))
        return 0
    use_threads(config.cluster.threads)
    stop.install()
    from tats_ray.controller.pretrain import pretrain

    pretrain(config, must_resume=given.resume, stop=stop)
    return 0


def _benchmark(given: argparse.Namespace) -> int:
    configs = {
        system: load_config(given.config, [*given.overrides, f"masking.system={system}"])
        for system in given.systems
    }
    from tats_ray.evaluation.benchmark import measure_step
    from tats_ray.models.precision import default_device

    sys.stdout.write(f"device {default_device()}\n")
    for system, config in configs.items():
        cost = measure_step(config, given.steps)
        memory = "-" if cost.peak_memory_mib is None else f"{cost.peak_memory_mib:.0f} MiB"
        sys.stdout.write(
            f"{system:<9} {cost.clips_per_second:8.1f} clips/s  step {cost.step_seconds:.4f} s  "
            f"masker {cost.masker_share:4.0%}  "
            f"motion {1000 * cost.prior_seconds:.1f} ms/clip  memory {memory}  "
            f"loss {cost.first_loss:.3f} -> {cost.last_loss:.3f}\n"
        )
    return 0
