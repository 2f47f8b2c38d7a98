"""Command line of jobs/pretrain.py: `[--config FILE] [section.key=value ...] [--resume]`."""

from __future__ import annotations

import argparse
import sys

from tats_ray.cli.command_line import (
    add_resume,
    job_parser,
    require_settings,
    run_guarded,
    use_threads,
)
from tats_ray.config import dump_config, load_config
from tats_ray.controller.signals import StopRequest


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


def _pretrain(given: argparse.Namespace, stop: StopRequest) -> int:
    require_settings(given, "python jobs/pretrain.py --config configs/demo.yaml")
    config = load_config(given.config, given.overrides)
    if given.dry_run:
        sys.stdout.write(dump_config(config))
        return 0
    use_threads(config.cluster.threads)
    stop.install()
    from tats_ray.controller.pretrain import pretrain

    pretrain(config, must_resume=given.resume, stop=stop)
    return 0
