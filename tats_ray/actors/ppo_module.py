"""The sampler as an RLlib module."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor

from tats_ray.config import config_from_dict
from tats_ray.models.precision import autocast
from tats_ray.training.initial_weights import load_initial_policy
from tats_ray.training.pretraining_model import build_policy


class SamplerModule(TorchRLModule, ValueFunctionAPI):
    """Wraps `TrajectorySampler`; the batch's `tokens` are float [B, N, d] patch tokens."""

    def setup(self) -> None:
        config = config_from_dict(self.model_config["config"])
        self.precision = config.train.precision
        self.sampler = build_policy(config)
        load_initial_policy(self.sampler, config.train.initial_weights)

    def _forward(self, batch: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        tokens = batch["tokens"]
        with autocast(self.precision, tokens.device):
            output = self.sampler(tokens)
        return output._asdict()

    @torch.no_grad()
    def compute_values(self, batch: dict[str, Any], embeddings: Any | None = None) -> Tensor:
        tokens = batch["tokens"]
        with autocast(self.precision, tokens.device):
            return self.sampler.value(tokens)
