"""`tats-ray evaluate`, `enrichment`, `probe` and `compare`: what a run is worth."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tats_ray.cli.command_line import (
    JobHelp,
    command_parser,
    job_parser,
    run_guarded,
    use_threads,
)
from tats_ray.config import Config, dump_config
from tats_ray.config.compare import CompareConfig
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.foreign_weights import foreign_settings, is_foreign
from tats_ray.config.load import apply_override, load_as, read_yaml, validate_as
from tats_ray.config.probe import ProbeFile, load_probe_config
from tats_ray.errors import ConfigError, RunDirectoryError

_PROBE = JobHelp(
    command="probe",
    purpose="Evaluate the frozen features of pre-trained weights.",
    example="tats-ray probe probe.checkpoint=runs/NAME probe.train=train.parquet "
    "probe.test=test.parquet",
    settings=ProbeFile,
    most_used=(
        "probe.checkpoint", "probe.train", "probe.test", "probe.folds", "probe.method",
        "probe.views", "probe.pool", "probe.name",
    ),
    remark="Needed: probe.checkpoint, probe.train, and probe.test or probe.folds.",
)  # fmt: skip
_COMPARE = JobHelp(
    command="compare",
    purpose="Compare masking systems: pre-train and evaluate each at every mask ratio.",
    example="tats-ray compare --config study:motion_classes",
    settings=CompareConfig,
    most_used=(
        "run.name", "run.output_dir", "compare.ratios", "compare.seeds", "compare.metric",
        "compare.budget", "compare.execution",
    ),
    names="study",
    remark="Running the same command again continues an unfinished comparison.",
)  # fmt: skip


def evaluate_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray evaluate`; returns the exit code."""
    parser = command_parser(
        "evaluate",
        "Evaluate a classifier on a test manifest with several views per video.",
        "tats-ray evaluate runs/NAME test.parquet views.temporal=2 views.spatial=3",
    )
    parser.add_argument(
        "run", type=Path, help="fine-tuning run, export, folder of transformers, or official file"
    )
    parser.add_argument(
        "rest",
        nargs="*",
        metavar="MANIFEST section.key=value",
        help="test manifest (default: the run's) and changed settings, such as views.temporal=2",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="names of an official file's classes in its order, one per line; without it labels "
        "must be their numbers",
    )
    given = parser.parse_intermixed_args(arguments)
    return run_guarded(lambda: _evaluate(given.run, given.rest, given.classes))


def _evaluate(run: Path, rest: list[str], classes: Path | None) -> int:
    given = [text for text in rest if "=" not in text]
    if len(given) > 1:
        raise ConfigError(f"pass at most one manifest, got {' '.join(given)}")
    if is_foreign(run):
        return _evaluate_weights(run, given, [text for text in rest if "=" in text], classes)
    _check_run(run)
    if "masking" in read_yaml(run / "config.yaml"):
        raise RunDirectoryError(
            f"{run}: is a pre-training run, which has no classifier: fine-tune it first "
            f"(tats-ray finetune train.initial_weights={run}), or probe its features "
            f"(tats-ray probe probe.checkpoint={run})"
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


def _evaluate_weights(
    source: Path, manifests: list[str], overrides: list[str], classes: Path | None
) -> int:
    """Weights that no run of ours here has left, or an export of one."""
    if not manifests:
        raise ConfigError(f"{source}: has no test manifest of its own; pass one behind it")
    tree = foreign_settings(source.absolute(), {})
    if "masking" in tree:  # an export of a pre-training run
        tree = {name: tree[name] for name in ("run", "model")}  # what follows refuses it
    for override in overrides:
        apply_override(tree, override)
    config = validate_as(FinetuneConfig, tree)
    use_threads(config.cluster.threads)
    from tats_ray.controller.evaluate import evaluate_weights
    from tats_ray.tracking.console import log_summary

    metrics = evaluate_weights(config, source, manifests[0], classes)
    log_summary(f"{source} on {manifests[0]}", metrics)
    return 0


def _check_run(run: Path) -> None:
    if not (run / "config.yaml").is_file():
        raise RunDirectoryError(f"{run}: is not a run directory (it contains no config.yaml)")


def enrichment_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray enrichment`; returns the exit code."""
    parser = command_parser(
        "enrichment",
        "Measure how much more often than chance a pre-training run shows what moves.",
        "tats-ray enrichment runs/NAME masks.parquet",
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
    """Entry point of `tats-ray probe`; returns the exit code."""
    parser = job_parser(_PROBE)
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
    """Entry point of `tats-ray compare`; returns the exit code."""
    parser = job_parser(_COMPARE, needs_file=True)
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
