"""A learned sampler on its own: it chooses tokens for whatever encoder reads them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from tats_ray.config import Config, TokenGrid
from tats_ray.config.load import read_yaml, validate_as
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.errors import CheckpointError
from tats_ray.evaluation.held_out import HeldOut, decode_middles
from tats_ray.evaluation.inspection import held_out_noise, learned_sampler, learned_weights
from tats_ray.masking.selection import SamplerView, select_visible
from tats_ray.models.mae import PatchEmbedding
from tats_ray.models.samplers import Sampler
from tats_ray.models.state import State, load_model_state
from tats_ray.models.tokens import patchify
from tats_ray.training.checkpoint import AVERAGE, RunState, read_safetensors
from tats_ray.training.pretrained import below

SAMPLER = "sampler.safetensors"
_EMBEDDING = "patch_embedding."


@dataclass(frozen=True)
class Mask:
    """Which tokens of a clip stay visible; they are numbered slice by slice, row by row."""

    tokens: Tensor  # int64 [k], ascending
    places: Tensor  # int64 [k, 3], time slice, row and column of each on the run's `grid`


class ExportedSampler:
    """A learned sampler and the clips that it reads.

    Attributes:
        settings: configuration of the run that it was exported from, without paths.
        sampler: a plain PyTorch module.
    """

    def __init__(self, settings: Config, weights: State) -> None:
        """Raises: CheckpointError: the weights are not of this configuration."""
        self.settings = settings
        model = settings.model
        sampler = learned_sampler(settings, critic=False)
        self._embedding = PatchEmbedding(model.tubelet * model.patch**2, model.width)
        inner = {k: v for k, v in weights.items() if not k.startswith(_EMBEDDING)}
        load_model_state(sampler, inner)
        if len(inner) < len(weights):
            load_model_state(self._embedding, below(_EMBEDDING, weights))
        self.sampler = cast(Sampler, sampler)

    @property
    def grid(self) -> TokenGrid:
        """Tokens of a clip over time, rows and columns."""
        return self.settings.grid

    @torch.no_grad()
    def __call__(self, video: str | Path | Tensor, draw: int = 0) -> Mask:
        """Chooses the tokens that stay visible.

        Args:
            video: a file, of which the clip in the middle is taken, in its middle square; or a
                clip, float [3, T, S, S] in [0, 1].
            draw: another number gives another draw; the same always gives the same.

        Raises:
            VideoDecodeError: the video cannot be decoded.
        """
        settings = self.settings
        if isinstance(video, Tensor):
            pixels = video[None].float()
        else:
            pixels = decode_middle(settings, video).pixels
        patches = patchify(pixels, settings.model.tubelet, settings.model.patch)
        assert patches.shape[1] == self.grid.tokens, f"a clip has {self.grid} tokens"
        view = SamplerView.of(settings)(patches, self._embedding)
        noise = held_out_noise(settings, draw, 1)
        visible = select_visible(settings.masking_system, noise, view, self.sampler)
        return mask_of(visible[0], self.grid)


def load_sampler(folder: str | Path) -> ExportedSampler:
    """Opens the sampler in a folder that tats-ray export has written.

    Raises:
        CheckpointError: there is none, or it is damaged. Nothing is executed.
        ConfigError: config.yaml is missing or damaged.
    """
    folder = Path(folder)
    if not (folder / SAMPLER).is_file():
        raise CheckpointError(
            f"{folder}: contains no sampler.safetensors; export a run whose masking system learns "
            "one (tats-ray export RUN FOLDER)"
        )
    settings = validate_as(Config, read_yaml(folder / "config.yaml"))
    return ExportedSampler(settings, read_safetensors(folder / SAMPLER))


def sampler_weights(settings: Config, state: RunState) -> State:
    """What `load_sampler` needs of a run: its actor and, where that reads patch tokens, the patch
    embedding; empty where the masking system learns nothing."""
    learned = learned_weights(state)
    if not learned:
        return {}
    weights = {k: v for k, v in learned.items() if not k.startswith("critic_")}
    if settings.masking_system.reads == "tokens":
        mae = state.trainer.files.get(AVERAGE, state.trainer.files["mae"])
        weights |= {k: v for k, v in mae.items() if k.startswith(_EMBEDDING)}
    return weights


def mask_of(visible: Tensor, grid: TokenGrid) -> Mask:
    """The mask of tokens int64 [k] in any order."""
    tokens = visible.sort().values
    shape = (grid.time, grid.rows, grid.columns)
    return Mask(tokens, torch.stack(torch.unravel_index(tokens, shape), dim=1))


def decode_middle(settings: Config, video: str | Path) -> HeldOut:
    """The clip in the middle of a video, in its middle square.

    Raises:
        VideoDecodeError: the video cannot be decoded.
    """
    path = str(Path(video).absolute())
    with closing(DecoderProcess()) as decoder:
        info = decoder.probe(path, settings.data.decode_seconds)
        row = {"path": path, "ground_truth": None, "mask": None, **asdict(info)}
        return decode_middles(settings, [row], decoder)
