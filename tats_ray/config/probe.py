"""The frozen-feature evaluation of a pre-training run: its own settings, and what it takes over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tats_ray.config.foreign_weights import foreign_settings, is_foreign
from tats_ray.config.geometry import TokenGrid
from tats_ray.config.job import TrackedConfig
from tats_ray.config.load import load_as, read_yaml, validate_as
from tats_ray.config.runtime import ClusterSettings
from tats_ray.config.settings import Settings
from tats_ray.config.tree import Config
from tats_ray.errors import ConfigError


class ProbeSettings(Settings):
    checkpoint: str
    """Run directory (its newest checkpoint), one checkpoint in it, an export, a folder of the
    transformers library, or an official file."""
    train: str
    """Manifest that the classifiers are fitted on."""
    test: str | None = None
    """Manifest they are scored on; empty: each fold of `folds` in turn."""
    folds: str | None = None
    """CSV or Parquet file with columns path, fold and perhaps group."""
    name: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Results go to `<run>/probes/<name>`."""
    views: int = Field(1, ge=1)
    """Clips per video, evenly spaced; their features are averaged."""
    layer: int | None = Field(None, ge=1)
    """Block whose output is read; empty: the encoder's, normalised."""
    pool: list[Annotated[int, Field(ge=1)]] = Field([1, 1, 1], min_length=3, max_length=3)
    """Cells over time, rows and columns that tokens are averaged in."""
    change: bool = False
    """Whether each feature's mean change from slice to slice is added to the means."""
    method: Literal["linear", "knn", "both"] = "both"
    """Classifier."""
    l2: list[Annotated[float, Field(gt=0)]] = Field(
        [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0], min_length=1
    )
    """Penalties on standardised features; chosen by cross-validation in the training part."""
    neighbours: int = Field(20, ge=1)
    """Neighbours that vote."""
    temperature: float = Field(0.07, gt=0)
    """Temperature of the neighbours' votes."""
    seed: int = Field(0, ge=0)
    """Seed of the inner cross-validation's parts."""

    @property
    def methods(self) -> list[str]:
        """The classifiers asked for."""
        return ["linear", "knn"] if self.method == "both" else [self.method]

    @model_validator(mode="after")
    def something_is_held_out(self) -> ProbeSettings:
        if self.test is None and self.folds is None:
            raise ValueError("nothing is held out: give probe.test, or probe.folds for folds")
        return self


class ProbeDataSettings(Settings):
    """What may differ from the pre-training run; empty: as the run has it."""

    frames: int | None = None
    """As data.frames of the run; empty: the run's."""
    stride: int | None = None
    """As data.stride of the run; empty: the run's."""
    size: int | None = None
    """As data.size of the run; empty: the run's."""
    stored_height: int | None = None
    """As data.stored_height of the run; empty: the run's."""
    stored_width: int | None = None
    """As data.stored_width of the run; empty: the run's."""
    decoder: str | None = None
    """As data.decoder of the run; empty: the run's."""
    decode_seconds: float | None = None
    """As data.decode_seconds of the run; empty: the run's."""
    broken_share: float | None = None
    """As data.broken_share of the run; empty: the run's."""
    block_clips: int | None = None
    """As data.block_clips of the run; empty: the run's."""


class ProbeFile(Settings):
    """What is written in a file or as overrides; checked further where it meets the run's."""

    probe: ProbeSettings
    data: ProbeDataSettings = ProbeDataSettings()
    model: dict[str, Any] = Field(default_factory=dict)
    """Sizes of the model of an official file, which does not tell them."""
    cluster: dict[str, Any] = Field(default_factory=dict)
    tracking: dict[str, Any] = Field(default_factory=dict)


class ResolvedProbe(TrackedConfig):
    """Every setting that the evaluation reads, under a run name of its own."""

    probe: ProbeSettings
    data: dict[str, Any]
    cluster: ClusterSettings


@dataclass(frozen=True)
class ProbeConfig:
    """A probe and the run that it looks at.

    Attributes:
        run: the run's configuration with the probe's data, cluster and tracking settings, and with
            `run.output_dir` where the run lies now.
        directory: the run's, absolute; for weights from elsewhere `runs/<their name>`.
    """

    probe: ProbeSettings
    run: Config
    directory: Path

    @property
    def resolved(self) -> ResolvedProbe:
        name = f"{self.run.run.name}-probe-{self.probe.name}"
        return ResolvedProbe(
            run=self.run.run.model_copy(update={"name": name}),
            tracking=self.run.tracking,
            probe=self.probe,
            data={name: getattr(self.run.data, name) for name in ProbeDataSettings.model_fields},
            cluster=self.run.cluster,
        )


def load_probe_config(path: str | None, overrides: list[str]) -> ProbeConfig:
    """Reads a YAML file and overrides, and with them the configuration of the run.

    Raises:
        ConfigError: one line naming the file or field and the remedy.
    """
    return probe_config(load_as(ProbeFile, path, overrides))


def probe_config(given: ProbeFile) -> ProbeConfig:
    """Joins a probe's settings with those of the run that it names.

    Raises:
        ConfigError: one line naming the field and the remedy.
    """
    directory, tree = _described(given)
    changes = {
        "data": given.data.model_dump(exclude_none=True),
        "cluster": given.cluster,
        "tracking": given.tracking,
        "run": {"output_dir": str(directory.parent)},
    }
    for section, values in changes.items():
        stored = tree.get(section, {})
        if not isinstance(stored, dict):
            raise ConfigError(
                f"{directory / 'config.yaml'}: '{section}' is not a section of settings"
            )
        tree[section] = {**stored, **values}
    run = validate_as(Config, tree)
    if given.probe.layer is not None and given.probe.layer > run.model.depth:
        raise ConfigError(
            f"probe.layer {given.probe.layer}: the encoder has {run.model.depth} blocks"
        )
    check_pool(given.probe, run.grid)
    return ProbeConfig(given.probe, run, directory)


def _described(given: ProbeFile) -> tuple[Path, dict[str, Any]]:
    """Where results go, and the settings that the weights were trained with, as far as known."""
    checkpoint = Path(given.probe.checkpoint).absolute()
    if given.model and checkpoint.exists() and not checkpoint.is_file():
        raise ConfigError(
            f"model.{next(iter(given.model))}: {checkpoint} tells its own; model is for official "
            "files"
        )
    if is_foreign(checkpoint):
        tree = foreign_settings(checkpoint, given.model)
        directory = Path("runs").absolute() / tree["run"]["name"]
    else:
        directory = run_directory(checkpoint)
        tree = read_yaml(directory / "config.yaml")
    return directory, tree if "masking" in tree else _of_encoder(tree)


def _of_encoder(tree: dict[str, Any]) -> dict[str, Any]:
    """What settings without masks, as a fine-tuning run's, tell of the encoder and its clips."""
    names = ("run", "model", "data", "cluster", "tracking")
    kept = {name: tree[name] for name in names if name in tree}
    if isinstance(kept.get("data"), dict):
        known = ProbeDataSettings.model_fields
        kept["data"] = {k: v for k, v in kept["data"].items() if k in known}
    return kept | {"masking": {"system": "random"}}


def check_pool(probe: ProbeSettings, grid: TokenGrid) -> None:
    """Raises: ConfigError: there are more cells than tokens."""
    slices = grid.time - 1 if probe.change else grid.time
    most = [slices, grid.rows, grid.columns]
    if any(cells > tokens for cells, tokens in zip(probe.pool, most, strict=True)):
        between = ", changes between slices counted" if probe.change else ""
        raise ConfigError(f"probe.pool {probe.pool}: at most {most} fit the tokens{between}")


def run_directory(checkpoint: Path) -> Path:
    """Directory of the run that `probe.checkpoint` names, or that the checkpoint is one of.

    Raises:
        ConfigError: there is no run.
    """
    for place in (checkpoint, checkpoint.parent.parent):
        if (place / "config.yaml").is_file():
            return place
    raise ConfigError(
        f"probe.checkpoint {checkpoint}: is neither a run directory (it contains no config.yaml) "
        "nor a checkpoint in one, an export, a folder of transformers, or an official file"
    )
