"""Command lines of jobs/pretrain.py and jobs/finetune.py:
`[--config FILE] [section.key=value ...] [--resume]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from tats_ray.cli.command_line import job_parser, require_settings, run_guarded, use_threads
from tats_ray.config import Config, dump_config, load_config
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.job import JobConfig
from tats_ray.config.load import load_as
from tats_ray.controller.signals import StopRequest
from tats_ray.errors import one_line

Job = TypeVar("Job", bound=JobConfig)


def pretrain_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/pretrain.py; returns the exit code."""
    return _run_resumable(
        arguments,
        "Pre-train a masked video autoencoder.",
        "python jobs/pretrain.py --config configs/demo.yaml",
        load_config,
        _pretrain,
    )


def _pretrain(config: Config, must_resume: bool, stop: StopRequest) -> None:
    from tats_ray.controller.pretrain import pretrain

    pretrain(config, must_resume=must_resume, stop=stop)


def finetune_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/finetune.py; returns the exit code."""
    return _run_resumable(
        arguments,
        "Fine-tune a pre-trained encoder on labelled videos and evaluate it.",
        "python jobs/finetune.py --config configs/finetune/demo.yaml",
        partial(load_as, FinetuneConfig),
        _finetune,
    )


def _finetune(config: FinetuneConfig, must_resume: bool, stop: StopRequest) -> None:
    from tats_ray.controller.finetune import finetune

    finetune(config, must_resume=must_resume, stop=stop)


def _opening(config: JobConfig) -> str:
    """What is about to happen, before seconds go into importing torch and Ray."""
    places = {
        "serial": "in this process",
        "local": "on Ray, which is started here",
        "address": f"on the Ray cluster at {config.cluster.address}",
    }
    train = config.train
    length = f"{train.steps} steps" if train.epochs is None else f"{train.epochs:g} epochs in steps"
    return one_line(
        f"{config.output_dir / config.run.name}: {length} of {train.batch_size} clips, "
        f"{places[config.cluster.mode]}"
    )


def _run_resumable(
    arguments: list[str] | None,
    description: str,
    example: str,
    load: Callable[[str | None, list[str]], Job],
    run: Callable[[Job, bool, StopRequest], None],
) -> int:
    """A job that leaves one run behind and continues it; returns the exit code.

    Args:
        example: command of a small run.
        load: the job's config from a file and overrides.
        run: the job, whether there must be a run to continue, and who may ask it to stop.
    """
    parser = job_parser(description, "Running the same command again continues an unfinished run.")
    parser.add_argument(
        "--resume", action="store_true", help="fail unless there is a run to continue"
    )
    given = parser.parse_args(arguments)
    stop = StopRequest()

    def job() -> int:
        require_settings(given, example)
        config = load(given.config, given.overrides)
        if given.dry_run:
            sys.stdout.write(dump_config(config))
            return 0
        use_threads(config.cluster.threads)
        stop.install()
        sys.stdout.write(_opening(config) + "\n")
        sys.stdout.flush()
        run(config, given.resume, stop)
        return 0

    return run_guarded(job, stop)
