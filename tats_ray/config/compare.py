"""A comparison: arms x mask ratios x seeds; each trial is a pre-training run that is probed and
perhaps fine-tuned."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.job import TrackedConfig
from tats_ray.config.load import apply_override, read_yaml, validate_as
from tats_ray.config.probe import ProbeFile
from tats_ray.config.runtime import ClusterSettings
from tats_ray.config.settings import Settings
from tats_ray.config.shipped import config_path
from tats_ray.config.tree import Config

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

# Top-1 accuracies, or enrichment of moving objects / that of static distractors
Metric = Literal["linear", "knn", "finetune", "enrichment_ratio"]

# What fine-tuning takes over from pre-training, unless it says otherwise.
_SHARED_DATA = (
    "manifest", "synthetic", "frames", "stride", "size", "stored_height", "stored_width", "decoder",
)  # fmt: skip


class CompareSettings(Settings):
    arms: dict[Name, list[str]] = Field(min_length=1)
    """Name of an arm -> overrides of `pretrain`."""
    ratios: list[float] = Field(min_length=1)
    """Mask ratios."""
    seeds: list[int] = Field(min_length=1)
    """Seeds."""
    references: list[str] = Field(min_length=1)
    """Arms that every arm is compared with, seed by seed."""
    seed_offsets: dict[str, int] = Field({})
    """Arm -> number added to its seeds. A reference under a second name, with other seeds, shows
    how far equal runs differ."""
    budget: Literal["clips", "seconds", "flops"] = "clips"
    """All arms see the same clips, or take the time or operations of the first reference."""
    metric: Metric = "linear"
    """Metric of differences and plots: top-1 accuracies, or motion enrichment."""
    execution: Literal["tasks", "in_turn"] = "tasks"
    """Ray tasks of one process each, or one by one on what `pretrain.cluster` says."""
    trial_cpus: float = Field(1.0, gt=0)
    """CPUs of a trial."""
    trial_gpus: float = Field(0.0, ge=0)
    """GPUs of a trial."""
    trial_retries: int = Field(3, ge=0)
    """Restarts of a trial whose process died."""

    @model_validator(mode="after")
    def references_are_arms(self) -> CompareSettings:
        named = {"references": self.references, "seed_offsets": list(self.seed_offsets)}
        for field, names in named.items():
            for name in names:
                if name not in self.arms:
                    known = ", ".join(self.arms)
                    raise ValueError(f"{field}: '{name}' is not an arm; choose from: {known}")
        return self

    @model_validator(mode="after")
    def values_differ(self) -> CompareSettings:
        for field, values in (("ratios", self.ratios), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{field}: {values} holds a value twice")
        return self


@dataclass(frozen=True)
class Trial:
    """One arm at one ratio for one seed."""

    arm: str
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        """Its folder and MLflow run."""
        return f"{self.arm}-{self.ratio:g}-{self.seed}"


class CompareConfig(TrackedConfig):
    """`pretrain`, `probe` and `finetune` hold what the jobs of that name read."""

    compare: CompareSettings
    base: str | None = None
    """File or name (recipe:demo) of a pre-training configuration that `pretrain` changes."""
    pretrain: dict[str, Any] = Field(default_factory=dict)
    probe: dict[str, Any] | None = Field(default_factory=dict)  # null: no probe
    probes: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Several probes of each run, such as one per data set: name -> what it has beside `probe`."""
    finetune: dict[str, Any] | None = None
    cluster: ClusterSettings = ClusterSettings()  # that trials are tasks of

    @model_validator(mode="before")
    @classmethod
    def read_base(cls, given: Any) -> Any:
        """Takes the file in, so that what is stored of a study says everything."""
        if not isinstance(given, dict) or not isinstance(given.get("base"), str):
            return given
        changes = given.get("pretrain", {})
        if not isinstance(changes, dict):
            return given
        tree, masking = read_yaml(config_path(given["base"])), changes.get("masking")
        if isinstance(masking, dict) and "system" in masking:
            apply_override(tree, f"masking.system={masking['system']}")
        return {**given, "base": None, "pretrain": _merge(tree, changes)}

    @model_validator(mode="after")
    def parts_are_valid(self) -> CompareConfig:
        metric = self.compare.metric
        needed = {"linear": "probe", "knn": "probe", "finetune": "finetune"}.get(metric)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"compare.metric {metric} needs the section {needed}")
        for trial in self.trials():
            run = self.pretrain_config(trial, "runs")
            if run.train.epochs is not None:
                raise ValueError(
                    "pretrain.train.epochs is not for a comparison, whose budget is counted in "
                    "steps: set pretrain.train.steps"
                )
            if self.compare.execution == "tasks" and run.cluster.mode != "serial":
                raise ValueError(
                    "compare.execution 'tasks' runs each trial in one process: set "
                    "pretrain.cluster.mode=serial, or compare.execution=in_turn"
                )
        if self.probes and self.probe is None:
            raise ValueError("probes: need the section probe, which may be empty: {}")
        for name in self.probe_names():
            validate_as(ProbeFile, self.probe_tree("run", "train", "test", name))
        if self.finetune is not None:
            data = self.finetune_config(self.trials()[0], "runs").data
            if data.manifest is not None and data.test_manifest is None:
                raise ValueError(
                    "finetune.data.test_manifest is needed to score a fine-tuned model"
                )
        return self

    def trials(self) -> list[Trial]:
        """Seeds outermost, so that an interrupted study has whole columns."""
        compare = self.compare
        return [
            Trial(arm, ratio, seed)
            for seed in compare.seeds
            for ratio in compare.ratios
            for arm in compare.arms
        ]

    def pretrain_config(self, trial: Trial, folder: str, steps: int | None = None) -> Config:
        """The pre-training run of a trial.

        Args:
            folder: where trials have their run directories.
            steps: in place of `train.steps`.

        Raises:
            ConfigError: names the field.
        """
        tree = deepcopy(self.pretrain)
        tree.setdefault("masking", {})["ratio"] = trial.ratio
        for override in self.compare.arms[trial.arm]:
            apply_override(tree, override)
        seed = trial.seed + self.compare.seed_offsets.get(trial.arm, 0)
        tree["run"] = {"name": trial.name, "seed": seed, "output_dir": folder}
        tree["tracking"] = {**tree.get("tracking", {}), **self._tracking()}
        if steps is not None:
            tree["train"] = {**tree.get("train", {}), "steps": steps}
        return validate_as(Config, tree)

    def probe_names(self) -> list[str | None]:
        """The probes of a trial: those of `probes`, a single one without a name, or none."""
        if self.probe is None:
            return []
        return list(self.probes) or [None]

    def probe_tree(
        self, run: str, train: str, test: str | None, name: str | None = None
    ) -> dict[str, Any]:
        """What tats-ray probe would read.

        Args:
            run: directory of the pre-training run.
            train, test: manifests, where the settings names none.
            name: one of `probe_names`.
        """
        given = dict(self.probe or {})
        if name is not None:
            given = _merge(given, self.probes[name]) | {"name": name}
        parts: dict[str, Any] = {
            name: given.pop(name) for name in ("data", "cluster") if name in given
        }
        if "train" not in given:
            given |= {"train": train} if "folds" in given else {"train": train, "test": test}
        return {**parts, "probe": {**given, "checkpoint": run}}

    def finetune_config(self, trial: Trial, folder: str) -> FinetuneConfig:
        """The fine-tuning run behind a trial's pre-training run; data, model and cluster are that
        one's where the settings says nothing else.

        Raises:
            ConfigError: names the field.
        """
        before, tree = self.pretrain_config(trial, folder), deepcopy(self.finetune or {})
        data = {name: value for name, value in before.data.model_dump().items()
                if name in _SHARED_DATA}  # fmt: skip
        tree["data"] = {**data, **tree.get("data", {})}
        tree["model"] = before.model.model_dump()
        tree["cluster"] = {**before.cluster.model_dump(), **tree.get("cluster", {})}
        tree["train"] = {**tree.get("train", {}), "initial_weights": f"{folder}/{trial.name}"}
        tree["run"] = {**before.run.model_dump(), "name": f"{trial.name}-finetune"}
        tree["tracking"] = {**tree.get("tracking", {}), **self._tracking()}
        return validate_as(FinetuneConfig, tree)

    def _tracking(self) -> dict[str, Any]:
        """Trials are runs of the study's experiment."""
        return self.tracking.model_dump(include={"mlflow", "uri", "experiment", "parent"})


def _merge(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Sections are merged, values replaced."""
    merged = dict(tree)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(tree.get(name), dict)
        merged[name] = _merge(tree[name], value) if both else value
    return merged
