"""Command line of jobs/probe.py: `--config FILE section.key=value ... [--dry-run]`."""

from __future__ import annotations

import argparse
import sys

from tats_ray.cli.command_line import job_parser, run_guarded, use_threads
from tats_ray.config import dump_config
from tats_ray.config.probe import load_probe_config


def probe_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/probe.py; returns the exit code."""
    parser = job_parser(
        "Evaluate the frozen features of a pre-training run.",
        "Needed: probe.checkpoint, probe.train, and probe.test or probe.folds.",
    )
    given = parser.parse_args(arguments)
    return run_guarded(lambda: _probe(given))


def _probe(given: argparse.Namespace) -> int:
    config = load_probe_config(given.config, given.overrides)
    if given.dry_run:
        sys.stdout.write(dump_config(config.resolved))
        return 0
    use_threads(config.run.cluster.threads)
    from tats_ray.controller.probe import probe

    probe(config)
    return 0
