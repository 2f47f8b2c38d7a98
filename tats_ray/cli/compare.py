"""Command line of jobs/compare.py: `--config FILE section.key=value ... [--dry-run]`."""

from __future__ import annotations

import argparse
import sys

from tats_ray.cli.command_line import job_parser, run_guarded, use_threads
from tats_ray.config import dump_config
from tats_ray.config.compare import CompareConfig
from tats_ray.config.load import load_as


def compare_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/compare.py; returns the exit code."""
    parser = job_parser(
        "Compare masking systems: pre-train and evaluate each at every mask ratio.",
        "Running the same command again continues an unfinished comparison.",
        needs_file=True,
    )
    given = parser.parse_args(arguments)
    return run_guarded(lambda: _compare(given))


def _compare(given: argparse.Namespace) -> int:
    config = load_as(CompareConfig, given.config, given.overrides)
    if given.dry_run:
        sys.stdout.write(dump_config(config))
        sys.stdout.write(f"# {len(config.trials())} trials\n")
        return 0
    use_threads(config.cluster.threads)
    from tats_ray.controller.compare import compare

    compare(config)
    return 0
