"""Runs with one checkpoint of random weights, and what is exported from them."""

from __future__ import annotations

import numpy as np
import torch

from tats_ray.config import dump_config
from tats_ray.config.foreign_weights import WEIGHTS
from tats_ray.controller.export import export
from tats_ray.data.clips import Cursor
from tats_ray.models.mae import build_mae
from tats_ray.models.state import model_state
from tats_ray.rl.learner import PolicyState
from tats_ray.training.checkpoint import Progress, RunState, write_checkpoint
from tats_ray.training.classifier import build_classifier
from tats_ray.training.pretraining_model import build_policy
from tats_ray.training.reports import TrainerState
from tests.conftest import tiny_config
from tests.finetuning import finetune_config

CLASSES = ["left", "right", "up"]


def randomized(model):
    """Every weight is random, biases of queries and values too."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.eval()


def pretraining_run(folder, *overrides):
    """Writes a run; returns its configuration and its autoencoder."""
    config = tiny_config(f"run.output_dir={folder.parent}", f"run.name={folder.name}", *overrides)
    mae = randomized(build_mae(config.model, config.grid, seed=3))
    policy = None
    if config.learns_by_rollouts:
        policy = PolicyState(5, model_state(randomized(build_policy(config))), {})
    moments = {"decoder.mask_token/step": np.array(4.0)}
    trainer = TrainerState(4, {"mae": model_state(mae), "mae_optimizer": moments})
    _write(folder, config, RunState(trainer, policy), 5)
    return config, mae


def finetuning_run(folder, *overrides):
    """Writes a run; returns its configuration and its classifier."""
    config = finetune_config(
        f"run.output_dir={folder.parent}", f"run.name={folder.name}", *overrides
    )
    model = randomized(build_classifier(config, len(CLASSES)))
    files = {"classifier": model_state(model), "classifier_optimizer": {}}
    _write(folder, config, RunState(TrainerState(4, files, {"classes": CLASSES}), None), 0)
    (folder / "summary.json").write_text('{"top1": 0.25, "mlflow_run_id": "abc"}')
    return config, model


def exported(run, folder, form, **options):
    """The folder, written from a run, whose file of weights is there."""
    export(run, folder, form, **options)
    assert (folder / WEIGHTS).is_file()
    return folder


def kernel(weight):
    """Our patch embedding as the kernel of a 3-D convolution."""
    return weight.view(24, 2, 16, 16, 3).permute(0, 4, 1, 2, 3).contiguous()


def official_classifier():
    """A classifier of ours, and its weights under the names of VideoMAE's fine-tuning code."""
    model = randomized(build_classifier(finetune_config(), 3))
    weights = {}
    for name, value in model.state_dict().items():
        if name == "patch_embedding.projection.weight":
            weights["patch_embed.proj.weight"] = kernel(value)
        elif name.startswith("norm."):
            weights[f"fc_{name}"] = value
        else:
            weights[name.replace("patch_embedding.projection", "patch_embed.proj")] = value
    return model, weights


def save_official(folder, weights):
    """A file as the codes write it."""
    torch.save({"model": weights}, folder / "official.pth")
    return folder / "official.pth"


def _write(folder, config, state, updates):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(config))
    write_checkpoint(folder / "checkpoints", state, Progress(4, 32, Cursor(), updates), keep=1)
