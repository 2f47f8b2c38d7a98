"""A finished or running pre-training, opened for use on videos of one's own."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tats_ray.config import Config, TokenGrid
from tats_ray.config.load import read_yaml, validate_as
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.evaluation.held_out import decode_middles
from tats_ray.evaluation.inspection import Inspector
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.samplers import Sampler
from tats_ray.training.checkpoint import RunState, newest_checkpoint, read_state


@dataclass(frozen=True)
class Mask:
    """Which tokens of a clip stay visible; they are numbered slice by slice, row by row."""

    tokens: Tensor  # int64 [k], ascending
    places: Tensor  # int64 [k, 3], time slice, row and column of each on the run's `grid`


class TrainedRun:
    """The weights of one checkpoint on the CPU, and the masks that the run draws.

    Attributes:
        settings: the run's configuration.
        mae: the autoencoder, in evaluation mode.
        sampler: the learned policy; None where the run's masks are fixed.
        step: optimiser steps behind the weights.
    """

    def __init__(self, settings: Config, state: RunState) -> None:
        """Raises: CheckpointError: the weights are not of this configuration."""
        self._inspector = Inspector(settings, state)
        self.settings = settings
        self.step = state.step
        self.mae: MaskedAutoencoder = self._inspector.mae
        self.sampler: Sampler | None = self._inspector.sampler

    @property
    def grid(self) -> TokenGrid:
        """Tokens of a clip over time, rows and columns."""
        return self.settings.grid

    def draw_mask(self, video: str | Path, draw: int = 0) -> Mask:
        """Chooses the visible tokens of the clip in the middle of a video, in its middle square.

        Args:
            draw: another number gives another draw; the same always gives the same.

        Raises:
            VideoDecodeError: the video cannot be decoded.
        """
        data, path = self.settings.data, str(Path(video).absolute())
        with closing(DecoderProcess()) as decoder:
            info = decoder.probe(path, data.decode_seconds)
            row = {"path": path, "ground_truth": None, "mask": None, **asdict(info)}
            clip = decode_middles(self.settings, [row], decoder)
        visible, _ = self._inspector.select(clip, draw)
        tokens = visible[0].sort().values
        shape = (self.grid.time, self.grid.rows, self.grid.columns)
        return Mask(tokens, torch.stack(torch.unravel_index(tokens, shape), dim=1))


def load_run(path: str | Path) -> TrainedRun:
    """Opens a pre-training run, at its newest checkpoint, or one checkpoint of a run.

    Raises:
        CheckpointError: there is no complete checkpoint, or it is damaged. Nothing is executed.
        ConfigError: the run's config.yaml is missing or not a pre-training's.
    """
    checkpoint = newest_checkpoint(Path(path))
    settings = validate_as(Config, read_yaml(checkpoint.parent.parent / "config.yaml"))
    return TrainedRun(settings, read_state(checkpoint))
