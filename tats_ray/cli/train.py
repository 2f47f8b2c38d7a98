"""`tats-ray pretrain`, `demo` and `finetune`: jobs that leave a run, and continue it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from tats_ray.cli.command_line import (
    JobHelp,
    job_parser,
    require_settings,
    run_guarded,
    use_threads,
)
from tats_ray.config import Config, dump_config, load_config
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.job import JobConfig
from tats_ray.config.load import load_as
from tats_ray.controller.signals import StopRequest
from tats_ray.errors import one_line

Job = TypeVar("Job", bound=JobConfig)

_CONTINUES = "Running the same command again continues an unfinished run."


_PRETRAIN = JobHelp(
    command="pretrain",
    purpose="Pre-train a masked video autoencoder.",
    example="tats-ray pretrain --config recipe:demo",
    settings=Config,
    most_used=(
        "run.name", "run.output_dir", "data.manifest", "masking.system", "masking.ratio",
        "train.steps", "train.batch_size", "train.workers", "rl.rollout_workers",
        "train.initial_weights", "cluster.mode",
    ),
    names="recipe",
    remark=_CONTINUES,
)  # fmt: skip
_DEMO = replace(
    _PRETRAIN,
    command="demo",
    purpose="Pre-train on generated videos of moving objects, as recipe:demo says.",
    example="tats-ray demo",
    most_used=("run.name", "run.output_dir", "masking.system", "train.steps", "cluster.mode"),
    names=None,
    config="recipe:demo",
)
_FINETUNE = JobHelp(
    command="finetune",
    purpose="Fine-tune a pre-trained encoder on labelled videos and evaluate it.",
    example="tats-ray finetune --config finetune:demo",
    settings=FinetuneConfig,
    most_used=(
        "run.name", "run.output_dir", "train.initial_weights", "data.manifest",
        "data.test_manifest", "train.steps", "train.batch_size", "train.workers", "cluster.mode",
    ),
    names="finetune",
    remark=_CONTINUES,
)  # fmt: skip


def pretrain_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray pretrain`; returns the exit code."""
    return _run_resumable(_PRETRAIN, arguments, load_config, _pretrain)


def demo_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray demo`, which is `pretrain --config recipe:demo`."""
    return _run_resumable(_DEMO, arguments, load_config, _pretrain)


def _pretrain(config: Config, must_resume: bool, stop: StopRequest) -> None:
    from tats_ray.controller.pretrain import pretrain

    pretrain(config, must_resume=must_resume, stop=stop)


def finetune_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray finetune`; returns the exit code."""
    return _run_resumable(_FINETUNE, arguments, partial(load_as, FinetuneConfig), _finetune)


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
    text: JobHelp,
    arguments: list[str] | None,
    load: Callable[[str | None, list[str]], Job],
    run: Callable[[Job, bool, StopRequest], None],
) -> int:
    """A job that leaves one run behind and continues it; returns the exit code.

    Args:
        load: the job's config from a file and overrides.
        run: the job, whether there must be a run to continue, and who may ask it to stop.
    """
    parser = job_parser(text)
    parser.add_argument(
        "--resume", action="store_true", help="fail unless there is a run to continue"
    )
    given = parser.parse_args(arguments)
    stop = StopRequest()

    def job() -> int:
        require_settings(given, text.example)
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
