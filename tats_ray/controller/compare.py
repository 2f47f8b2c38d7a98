"""A comparison: plans its trials, runs what is left of them, and keeps the report up to date."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

from tats_ray.config import dump_config
from tats_ray.config.compare import CompareConfig, Trial
from tats_ray.controller.run_directory import read_json, write_text
from tats_ray.controller.step_cost import equal_cost_steps, step_flops, step_seconds
from tats_ray.controller.trial import TrialFailure, TrialPlan, read_result, run_trial
from tats_ray.data.synthetic.generate import ensure_synthetic
from tats_ray.errors import ComponentFailedError
from tats_ray.evaluation.comparison import Comparison, TrialResult, measures
from tats_ray.storage import writing
from tats_ray.tracking.comparison_report import log_comparison, write_comparison
from tats_ray.tracking.console import log
from tats_ray.tracking.mlflow_run import MLflowRun
from tats_ray.tracking.tracker import TrackedRun, UntrackedRun

_TIMED_STEPS = 10


def compare(config: CompareConfig) -> Comparison:
    """Runs, or continues, a comparison.

    Raises:
        ComponentFailedError: trials failed; all others are done and in the report.
        StorageError: the disk is full or read-only, which ends it at once.
    """
    directory = config.output_dir / config.run.name
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "config.yaml", dump_config(config))  # before MLflow is waited for
    tracked: TrackedRun = UntrackedRun()
    if config.tracking.mlflow:  # the study's own run, the same after a restart
        identity = {"key": uuid.uuid4().hex} | read_json(directory / "study.json")
        write_text(directory / "study.json", json.dumps(identity))
        tracked = MLflowRun(config, identity["key"])
        tracked.wait_id()
    if tracked.run_id is not None:  # MLflow shows the trials below the comparison
        tracking = config.tracking.model_copy(update={"uri": config.tracking_uri})
        config = config.model_copy(update={"tracking": tracking}).below(tracked.run_id)
    status = "FAILED"
    try:
        comparison = _compare(config, directory, tracked)
        status = "FINISHED"
        return comparison
    finally:
        tracked.finish(status)


def _compare(config: CompareConfig, directory: Path, tracked: TrackedRun) -> Comparison:
    """Runs the trials that are left, brings the report up to date after each, and reports the whole
    to the comparison's MLflow run."""
    plans = _plans(config, directory)
    found = {plan.trial.name: read_result(plan) for plan in plans}
    comparison = Comparison([result for result in found.values() if result is not None])
    left = [plan for plan in plans if found[plan.trial.name] is None]
    log(f"{directory}: {len(plans)} trials, {len(left)} of them to run")
    failures = []
    for outcome in _outcomes(config, left):
        if isinstance(outcome, TrialFailure):
            failures.append(outcome)
            log(f"{outcome.name} failed: {outcome.reason}")
            continue
        comparison.results.append(outcome)
        _log_result(outcome, config.compare.metric, len(comparison.results), len(plans))
        write_comparison(directory, config.compare, comparison)
    comparison.sort(config.compare.arms)
    for file in write_comparison(directory, config.compare, comparison):
        tracked.log_file(file, "comparison")
    log_comparison(str(directory), config.compare, comparison)
    if failures:
        raise ComponentFailedError(
            f"{len(failures)} of {len(plans)} trials failed, the first is {failures[0].name}: "
            f"{failures[0].reason}; the same command tries them again"
        )
    return comparison


def _plans(config: CompareConfig, directory: Path) -> list[TrialPlan]:
    """Every trial, with the steps that the budget gives it."""
    folder = str(directory / "trials")
    trials = config.trials()
    data = config.pretrain_config(trials[0], folder).data
    made = ensure_synthetic(data.synthetic, Path(folder)) if data.manifest is None else None
    costs = _costs(config, directory)
    plans = []
    for trial in trials:
        steps = config.pretrain_config(trial, folder).train.steps
        cost = costs[(trial.arm, trial.ratio)]
        reference = costs[(config.compare.references[0], trial.ratio)]
        if config.compare.budget != "clips":
            unit = config.compare.budget
            steps = equal_cost_steps(steps, reference[unit], cost[unit])
        plans.append(
            TrialPlan(
                config,
                trial,
                folder=folder,
                steps=steps,
                gflops=cost["flops"] / 1e9,
                train="" if made is None else str(made.train),
                test=None if made is None else str(made.held_out),
            )
        )
    return plans


def _costs(config: CompareConfig, directory: Path) -> dict[tuple[str, float], dict[str, float]]:
    """Cost of a step of every arm at every ratio: `flops`, and `seconds` where the budget asks.

    Measured once and kept, so that a continued study has the same steps.
    """
    file = directory / "costs.json"
    stored = read_json(file)
    costs = {}
    for trial in config.trials():
        cell = (trial.arm, trial.ratio)
        if cell in costs:
            continue
        run = config.pretrain_config(trial, "runs")
        outside = {"run", "tracking", "checkpoint", "train"}
        settings = json.dumps(run.model_dump(exclude=outside), sort_keys=True)
        key = hashlib.sha256(f"{run.train.batch_size} {settings}".encode()).hexdigest()[:16]
        known = stored.setdefault(key, {})
        if "flops" not in known:
            known["flops"] = step_flops(run)
        if config.compare.budget == "seconds" and "seconds" not in known:
            known["seconds"] = step_seconds(run, _TIMED_STEPS)
        costs[cell] = known
    write_text(file, json.dumps(stored, indent=2))
    return costs


def _outcomes(
    config: CompareConfig, plans: list[TrialPlan]
) -> Iterator[TrialResult | TrialFailure]:
    if not plans:
        return iter(())
    if config.compare.execution == "in_turn":
        return map(run_trial, plans)
    from tats_ray.actors.trial_tasks import run_as_tasks

    return (
        TrialFailure(plan.trial.name, outcome) if isinstance(outcome, str) else outcome
        for plan, outcome in run_as_tasks(run_trial, plans, config)
    )


def _log_result(result: TrialResult, metric: str, done: int, count: int) -> None:
    shown = [f"{name} {result.metrics[name]:.3f}" for name in measures(metric, result.metrics)]
    if "moving" in result.metrics:
        shown.append(f"moving {result.metrics['moving']:.2f}")
    if "static" in result.metrics:
        shown.append(f"static {result.metrics['static']:.2f}")
    name = Trial(result.arm, result.ratio, result.seed).name
    log(f"{done}/{count}  {name}  loss {result.metrics['loss']:.4f}  {'  '.join(shown)}")
