"""The README.md beside exported weights: what they were trained on, how, and how to load them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tats_ray.config import Config
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.job import JobConfig

_CLASSES = {
    "autoencoder": "VideoMAEForPreTraining",
    "encoder": "VideoMAEModel",
    "classifier": "VideoMAEForVideoClassification",
}
_SAMPLER = """
## Sampler

`sampler.safetensors` is the learned sampler. `tats_ray.load_sampler("FOLDER")("video.mp4").tokens`
are the tokens that it keeps visible, numbered slice by slice, row by row.
"""
_LICENCE = """
## Licence

The code that trained these weights, tats_ray, is under Apache-2.0. The weights carry the terms of
the videos that they were trained on{origin}. Nobody has checked these terms for you: state them
here before you pass the weights on.
"""


def model_card(
    settings: JobConfig,
    *,
    part: str,
    form: str,
    step: int,
    metrics: Mapping[str, float],
    has_sampler: bool,
) -> str:
    """The text of a model card.

    Args:
        part: "autoencoder", "encoder" or "classifier".
        form: format of the weights.
        step: optimiser steps behind them.
        metrics: of the run, by name.
        has_sampler: whether the learned sampler lies beside the weights.
    """
    lines = [
        "---",
        f"library_name: {'transformers' if form == 'huggingface' else form}",
        f"pipeline_tag: {'video-classification' if part == 'classifier' else 'feature-extraction'}",
        "license: other",
        "tags: [video, masked-autoencoder, tats_ray]",
        "---",
        "",
        f"# {settings.run.name}",
        "",
        f"Masked video autoencoder trained with tats_ray: the {part}, format {form}.",
        "",
        *_table("what", "value", _facts(settings, step)),
    ]
    if metrics:
        shown = {name: f"{value:.6g}" for name, value in metrics.items()}
        lines += ["", "## Metrics", "", *_table("metric", "value", shown)]
    text = "\n".join([*lines, "", "## Load", "", *_loading(part, form)]) + "\n"
    return text + (_SAMPLER if has_sampler else "") + _LICENCE.format(origin=_origin(settings))


def _facts(settings: JobConfig, step: int) -> dict[str, str]:
    data, model, train = settings.data, settings.model, settings.train
    manifest = "generated clips" if data.manifest is None else Path(data.manifest).name
    facts = {
        "data": manifest,
        "clip": f"{data.frames} frames at stride {data.stride}, {data.size} x {data.size} pixels",
        "pixels": "0 to 1, then ImageNet's mean and deviation",
        "encoder": f"width {model.width}, depth {model.depth}, heads {model.heads}, tokens of "
        f"{model.tubelet} x {model.patch} x {model.patch}, positions {model.positions}",
        "steps": f"{step} of {train.batch_size} clips",
        "seed": str(settings.run.seed),
    }
    if isinstance(settings, Config):
        facts["masking system"] = settings.masking.system
        facts["mask ratio"] = str(settings.masking.ratio)
        facts["visible tokens"] = f"{settings.visible} of {settings.grid.tokens}"
    if isinstance(settings, FinetuneConfig):
        facts["test views"] = f"{settings.views.temporal} x {settings.views.spatial}"
    return facts


def _origin(settings: JobConfig) -> str:
    source = settings.train.initial_weights
    if source is None:
        return ""
    return f", and of what they were started from (`{Path(source).name}`)"


def _loading(part: str, form: str) -> list[str]:
    if form == "huggingface":
        name = _CLASSES[part]
        lines = [
            f"from transformers import VideoMAEImageProcessor, {name}",
            "",
            'processor = VideoMAEImageProcessor.from_pretrained("FOLDER")',
            f'model = {name}.from_pretrained("FOLDER")',
        ]
    else:
        lines = [
            "from safetensors.torch import load_file",
            "",
            'weights = load_file("FOLDER/model.safetensors")',
        ]
    return ["```python", *lines, "```"]


def _table(left: str, right: str, rows: Mapping[str, str]) -> list[str]:
    cells = [f"| {name} | {value.replace('|', ' ')} |" for name, value in rows.items()]
    return [f"| {left} | {right} |", "|---|---|", *cells]
