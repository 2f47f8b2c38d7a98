"""One trial of a comparison: pre-train, probe, fine-tune; continued where it was cut off."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tats_ray.config.compare import CompareConfig, Trial
from tats_ray.config.load import validate_as
from tats_ray.config.probe import ProbeFile, probe_config
from tats_ray.controller.finetune import finetune
from tats_ray.controller.pretrain import pretrain
from tats_ray.controller.probe import probe
from tats_ray.controller.run_directory import read_json, write_text
from tats_ray.errors import StorageError, TatsRayError
from tats_ray.evaluation.comparison import TrialResult
from tats_ray.storage import converting, writing
from tats_ray.tracking.metrics_file import read_records

_RESULT = "result.json"


@dataclass(frozen=True)
class TrialPlan:
    """What one process needs to run a trial.

    Attributes:
        folder: where trials have their run directories, absolute.
        steps: of pre-training, as the budget gives them.
        gflops: of one such step / 1e9.
        train, test: manifests of the generated set, for probes that name none.
    """

    config: CompareConfig
    trial: Trial
    folder: str
    steps: int
    gflops: float
    train: str
    test: str | None

    @property
    def directory(self) -> Path:
        return Path(self.folder) / self.trial.name


@dataclass(frozen=True)
class TrialFailure:
    """A trial that ended with a fault of the user's or of its own; the others go on."""

    name: str
    reason: str


def run_trial(plan: TrialPlan) -> TrialResult | TrialFailure:
    """Runs a trial, or what is left of it; its output goes to `trial.log` in its run directory.

    Raises:
        StorageError: the disk is full or read-only, for all further trials as well.
    """
    with writing(plan.directory):
        plan.directory.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with (
        converting(plan.directory / "trial.log"),  # every line printed may find the disk full
        (plan.directory / "trial.log").open("a", encoding="utf-8", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            result = _run(plan)
        except StorageError:
            raise
        except TatsRayError as error:
            log.write(f"error: {error}\n")
            return TrialFailure(plan.trial.name, str(error))
        except Exception:
            log.write(traceback.format_exc())
            raise
    stored = asdict(result) | {"settings": _settings(plan)}
    write_text(plan.directory / _RESULT, json.dumps(stored, indent=2))
    return result


def read_result(plan: TrialPlan) -> TrialResult | None:
    """The result that an earlier call left, if it is of the same settings."""
    stored = read_json(plan.directory / _RESULT)
    if not stored or stored.pop("settings") != _settings(plan):
        return None
    return TrialResult(**stored)


def _run(plan: TrialPlan) -> TrialResult:
    """The trial's jobs in turn; what is complete already is not done again."""
    config, trial = plan.config, plan.trial
    summary = pretrain(config.pretrain_config(trial, plan.folder, plan.steps), must_resume=False)
    if summary["steps"] < plan.steps:  # SIGTERM or Ctrl-C; its checkpoint is written
        raise KeyboardInterrupt
    metrics = {"loss": summary["loss_last"], **_enrichment(summary)}
    for name in config.probe_names():
        tree = config.probe_tree(str(plan.directory), plan.train, plan.test, name)
        results = probe(probe_config(validate_as(ProbeFile, tree)))["results"]
        prefix = "" if name is None else f"{name}_"
        metrics |= {f"{prefix}{method}": result["top1"] for method, result in results.items()}
    if config.finetune is not None:
        tuned = config.finetune_config(trial, plan.folder)
        scores = finetune(tuned.below(summary["mlflow_run_id"]), must_resume=False)
        if scores["steps"] < tuned.train.steps:
            raise KeyboardInterrupt
        metrics["finetune"] = scores["top1"]
    records = read_records(plan.directory / "metrics.jsonl")
    seconds = [record["time/step_seconds"] for record in records]
    return TrialResult(
        arm=trial.arm,
        ratio=trial.ratio,
        seed=trial.seed,
        steps=plan.steps,
        gflops=plan.gflops,
        seconds=sum(seconds) / len(seconds),
        metrics=metrics,
        curve=[
            {
                "step": record["step"],
                "moving": record["enrichment/moving"],
                "static": record["enrichment/static"],
            }
            for record in records
            if "enrichment/moving" in record and "enrichment/static" in record
        ],
    )


def _enrichment(summary: dict[str, Any]) -> dict[str, float]:
    """What the run measured at its end; nothing for videos without truth."""
    moving, static = summary["motion_enrichment"], summary["static_enrichment"]
    if moving is None:
        return {}
    if static is None:  # of real videos
        return {"moving": moving}
    return {"moving": moving, "static": static, "enrichment_ratio": moving / static}


def _probe_trees(plan: TrialPlan) -> Any:
    """Of all probes; the tree itself where there is a single one without a name."""
    names = plan.config.probe_names()
    trees = [plan.config.probe_tree("", plan.train, plan.test, name) for name in names]
    return trees if plan.config.probes else next(iter(trees), None)


def _settings(plan: TrialPlan) -> str:
    """Digest of all that a result follows from, but for code, videos and machine; a setting at its
    default counts as not there, so that a newer version with more settings still knows it."""
    config, trial, folder = plan.config, plan.trial, plan.folder
    elsewhere = {"cluster", "tracking", "checkpoint"}
    parts = [
        config.pretrain_config(trial, folder, plan.steps).model_dump(
            exclude=elsewhere, exclude_defaults=True
        ),
        _probe_trees(plan),
        None
        if config.finetune is None
        else config.finetune_config(trial, folder).model_dump(
            exclude=elsewhere, exclude_defaults=True
        ),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
