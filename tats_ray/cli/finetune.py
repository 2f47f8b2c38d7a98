"""Command line of jobs/finetune.py: `[--config FILE] [section.key=value ...] [--resume]`."""

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
from tats_ray.config import dump_config
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import load_as
from tats_ray.controller.signals import StopRequest


def finetune_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/finetune.py; returns the exit code."""
    parser = job_parser(
        "Fine-tune a pre-trained encoder on labelled videos and evaluate it.",
        "Running the same command again continues an unfinished run.",
    )
    add_resume(parser)
    given = parser.parse_args(arguments)
    stop = StopRequest()
    return run_guarded(lambda: _finetune(given, stop), stop)


def _finetune(given: argparse.Namespace, stop: StopRequest) -> int:
    require_settings(given, "python jobs/finetune.py --config configs/finetune/demo.yaml")
    config = load_as(FinetuneConfig, given.config, given.overrides)
    if given.dry_run:
        sys.stdout.write(dump_config(config))
        return 0
    use_threads(config.cluster.threads)
    stop.install()
    from tats_ray.controller.finetune import finetune

    finetune(config, must_resume=given.resume, stop=stop)
    return 0
