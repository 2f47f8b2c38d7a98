"""Writes the weights of a run as others read them: transformers, timm, or a plain safetensors
file; each with a model card, and with the sampler where the run has learned one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.numpy import save_file

from tats_ray.config import Config, dump_config
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.foreign_weights import WEIGHTS
from tats_ray.config.huggingface import (
    CLASSIFIER,
    CONFIG,
    ENCODER,
    PRETRAINING,
    huggingface_config,
)
from tats_ray.config.job import JobConfig
from tats_ray.config.load import read_yaml, validate_as
from tats_ray.controller.model_card import model_card
from tats_ray.controller.run_directory import read_json
from tats_ray.errors import ExportError
from tats_ray.evaluation.exported_sampler import SAMPLER, sampler_weights
from tats_ray.models import foreign_names
from tats_ray.models.foreign_names import to_huggingface, to_timm
from tats_ray.models.state import State
from tats_ray.models.tokens import IMAGE_MEAN, IMAGE_STD, position_table
from tats_ray.storage import making_folder
from tats_ray.training.checkpoint import newest_checkpoint, read_state
from tats_ray.training.pretrained import CLASSES, Pretrained, read_pretrained

Format = Literal["huggingface", "timm", "safetensors"]

# What tells more of a machine than of a model.
_PRIVATE: dict[str, Any] = {
    "run": {"output_dir"},
    "data": {"manifest": True, "held_out_manifest": True, "test_manifest": True,
             "frame_cache": True, "motion": {"cache"}},
    "model": {"feature_target": {"weights"}},
    "train": {"initial_weights"},
    "cluster": True, "tracking": True,
}  # fmt: skip


@dataclass(frozen=True)
class _Source:
    """A run's weights and what describes them."""

    run: Path
    settings: JobConfig
    given: Pretrained
    sampler: State  # empty where nothing was learned

    @property
    def classifies(self) -> bool:
        return isinstance(self.settings, FinetuneConfig)


def export(source: Path, folder: Path, form: Format, *, encoder_only: bool = False) -> None:
    """Writes `folder` from the newest checkpoint of a run, or from one checkpoint.

    Args:
        encoder_only: leaves the decoder of an autoencoder out.

    Raises:
        CheckpointError: there is no complete checkpoint, or it is damaged.
        ConfigError: the run's config.yaml is missing or damaged.
        ExportError: the format cannot express the model.
        StorageError: the folder cannot be written, or holds files already.
    """
    given = _read(source)
    if encoder_only and given.classifies:
        raise ExportError(f"{source}: is a fine-tuning run, which has no decoder: drop --encoder")
    tensors, documents = _FORMS[form](given, encoder_only)
    with making_folder(folder) as aside:
        # transformers asks for this note; it has no other use.
        save_file(tensors, aside / WEIGHTS, metadata={"format": "pt"})
        if given.sampler:
            save_file(given.sampler, aside / SAMPLER)
        for name, content in documents.items():
            (aside / name).write_text(json.dumps(content, indent=2) + "\n")
        (aside / "config.yaml").write_text(dump_config(_public(given.settings)))
        (aside / "README.md").write_text(_card(given, form, encoder_only))


def _read(source: Path) -> _Source:
    checkpoint = newest_checkpoint(source)
    run = checkpoint.absolute().parent.parent
    tree = read_yaml(run / "config.yaml")
    if "masking" not in tree:
        settings = validate_as(FinetuneConfig, tree)
        return _Source(run, settings, read_pretrained(checkpoint), {})
    config = validate_as(Config, tree)
    sampler = sampler_weights(config, read_state(checkpoint))
    return _Source(run, config, read_pretrained(checkpoint), sampler)


def _public(settings: JobConfig) -> JobConfig:
    """The settings without paths, machines and addresses."""
    return validate_as(type(settings), settings.model_dump(exclude=_PRIVATE))


def _huggingface(source: _Source, encoder_only: bool) -> tuple[State, Mapping[str, Any]]:
    settings, given = source.settings, source.given
    model, grid, size = settings.model, settings.grid, settings.data.size
    if source.classifies:
        architecture, names = CLASSIFIER, foreign_names.CLASSIFIER
    else:
        architecture = ENCODER if encoder_only else PRETRAINING
        names = foreign_names.AUTOENCODER
    state = given.encoder if encoder_only else given.classifier or given.autoencoder
    config = huggingface_config(model, grid, architecture, given.classes)
    processor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True, "size": {"shortest_edge": size}, "resample": 2,
        "do_center_crop": True, "crop_size": {"height": size, "width": size},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": IMAGE_MEAN, "image_std": IMAGE_STD,
    }  # fmt: skip
    documents = {CONFIG: config, "preprocessor_config.json": processor}
    return to_huggingface(state, model, names), documents


def _timm(source: _Source, encoder_only: bool) -> tuple[State, Mapping[str, Any]]:
    """The encoder; there is nothing else that timm has."""
    if source.classifies:
        raise ExportError(
            f"{source.run}: is a fine-tuning run, whose encoder has no last norm as timm's: use "
            "--format huggingface or safetensors"
        )
    model = source.settings.model
    positions = position_table(model.positions, source.settings.grid, model.width)
    return to_timm(source.given.encoder, model, positions.numpy()), {}


def _safetensors(source: _Source, encoder_only: bool) -> tuple[State, Mapping[str, Any]]:
    """Our own names, as `read_pretrained` reads them."""
    given = source.given
    if source.classifies:
        return given.weights, {CLASSES: given.classes}
    if encoder_only:
        return {f"mae.{name}": value for name, value in given.encoder.items()}, {}
    return given.weights, {}


_FORMS = {"huggingface": _huggingface, "timm": _timm, "safetensors": _safetensors}


def _card(source: _Source, form: Format, encoder_only: bool) -> str:
    metrics: dict[str, Any] = dict(read_json(source.run / "summary.json"))
    for file in sorted((source.run / "evaluation").glob("*.json")):
        metrics |= {f"{file.stem}: {key}": value for key, value in read_json(file).items()}
    numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
    part = "encoder" if encoder_only or form == "timm" else "autoencoder"
    return model_card(
        source.settings,
        part="classifier" if source.classifies else part,
        form=form,
        step=source.given.step,
        metrics=numbers,
        has_sampler=bool(source.sampler),
    )
