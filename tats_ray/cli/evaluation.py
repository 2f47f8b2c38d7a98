"""Command lines of jobs/evaluate.py (`RUN [MANIFEST] section.key=value ...`), jobs/enrichment.py
(`RUN MANIFEST section.key=value ...`), jobs/probe.py and jobs/compare.py (`--config FILE
section.key=value ... [--dry-run]`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tats_ray.cli.command_line import job_parser, run_guarded, use_threads
from tats_ray.config import Config, dump_config
from tats_ray.config.compare import CompareConfig
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import load_as, read_yaml
from tats_ray.config.probe import load_probe_config
from tats_ray.errors import ConfigError, RunDirectoryError


def evaluate_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/evaluate.py; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Evaluate a fine-tuned run on a test manifest with several views per video."
    )
    parser.add_argument("run", type=Path, help="directory of a fine-tuning run")
    parser.add_argument(
        "rest",
        nargs="*",
        metavar="MANIFEST section.key=value",
        help="test manifest (default: the run's) and changed settings, such as views.temporal=2",
    )
    given = parser.parse_args(arguments)
    return run_guarded(lambda: _evaluate(given.run, given.rest))


def _evaluate(run: Path, rest: list[str]) -> int:
    given = [text for text in rest if "=" not in text]
    if len(given) > 1:
        raise ConfigError(f"pass at most one manifest, got {' '.join(given)}")
    _check_run(run)
    if "masking" in read_yaml(run / "config.yaml"):
        raise RunDirectoryError(
            f"{run}: is a pre-training run, which has no classifier: fine-tune it first "
            f"(jobs/finetune.py train.initial_weights={run}), or probe its features "
            f"(jobs/probe.py probe.checkpoint={run})"
        )
    overrides = [text for text in rest if "=" in text]
    run = run.absolute()
    place = [f"run.output_dir={run.parent}", f"run.name={run.name}"]  # it may have been moved
    config = load_as(FinetuneConfig, run / "config.yaml", [*place, *overrides])
    use_threads(config.cluster.threads)
    from tats_ray.controller.evaluate import evaluate_run
    from tats_ray.controller.run import manifests
    from tats_ray.tracking.console import log_summary

    manifest = given[0] if given else manifests(config, config.data.test_manifest)[1]
    if manifest is None:
        raise ConfigError(
            "the run has no data.test_manifest: pass a test manifest after the run directory"
        )
    log_summary(f"{run} on {manifest}", evaluate_run(config, run, manifest))
    return 0


def _check_run(run: Path) -> None:
    if not (run / "config.yaml").is_file():
        raise RunDirectoryError(f"{run}: is not a run directory (it contains no config.yaml)")


def enrichment_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/enrichment.py; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Measure how much more often than chance a pre-training run shows what moves."
    )
    parser.add_argument("run", type=Path, help="directory of a pre-training run")
    parser.add_argument("manifest", help="videos with masks of moving objects")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="changed settings, such as data.stride=1",
    )
    given = parser.parse_args(arguments)
    return run_guarded(lambda: _enrichment(given.run, given.manifest, given.overrides))


def _enrichment(run: Path, manifest: str, overrides: list[str]) -> int:
    _check_run(run)
    if "masking" not in read_yaml(run / "config.yaml"):
        raise RunDirectoryError(f"{run}: is a fine-tuning run, which draws no masks")
    config = load_as(Config, run / "config.yaml", overrides)
    use_threads(config.cluster.threads)
    from tats_ray.controller.enrichment import measure_enrichment

    measure_enrichment(config, run.absolute(), manifest)
    return 0


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
