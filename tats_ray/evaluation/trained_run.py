"""A finished or running pre-training, opened for use on videos of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tats_ray.config import Config, TokenGrid
from tats_ray.config.load import read_yaml, validate_as
from tats_ray.data.decoder_process import DecoderProcess
from tats_ray.data.sampling import successive_windows
from tats_ray.evaluation.exported_sampler import Mask, decode_middle, mask_of
from tats_ray.evaluation.held_out import decode_middles
from tats_ray.evaluation.inspection import Inspection, Inspector
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.samplers import Sampler
from tats_ray.training.checkpoint import RunState, newest_checkpoint, read_state


@dataclass(frozen=True)
class VideoWindow:
    """A clip of a video as a run sees it; all windows of a video show its frames once.

    Attributes:
        number: of the window, of `windows` in all.
        frames_per_second: of the video.
        shown: those of the clip's frames that no window before it has.
        frames: their numbers in the video.
        inspection: of this one clip.
    """

    number: int
    windows: int
    frames_per_second: float
    shown: range
    frames: range
    inspection: Inspection


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
        visible, _ = self._inspector.select(decode_middle(self.settings, video), draw)
        return mask_of(visible[0], self.grid)

    def inspect_video(self, video: str | Path) -> Iterator[VideoWindow]:
        """Masks and reconstructs a whole video, in its middle square, window by window; each window
        has a mask of its own.

        Raises:
            VideoDecodeError: the video cannot be decoded.
        """
        data = self.settings.data
        with closing(DecoderProcess()) as decoder:
            row = self._row(video, decoder)
            windows = successive_windows(row["frames"], data.frames, data.stride)
            for number, (start, shown, frames) in enumerate(windows):
                clip = decode_middles(self.settings, [row], decoder, start)
                found = self._inspector.inspect(clip, number)
                yield VideoWindow(number, len(windows), row["fps"], shown, frames, found)

    def _row(self, video: str | Path, decoder: DecoderProcess) -> dict[str, Any]:
        """The video as a row of a manifest."""
        path = str(Path(video).absolute())
        info = decoder.probe(path, self.settings.data.decode_seconds)
        return {"path": path, "ground_truth": None, "mask": None, **asdict(info)}


def load_run(path: str | Path) -> TrainedRun:
    """Opens a pre-training run, at its newest checkpoint, or one checkpoint of a run.

    Raises:
        CheckpointError: there is no complete checkpoint, or it is damaged. Nothing is executed.
        ConfigError: the run's config.yaml is missing or not a pre-training's.
    """
    checkpoint = newest_checkpoint(Path(path))
    settings = validate_as(Config, read_yaml(checkpoint.parent.parent / "config.yaml"))
    return TrainedRun(settings, read_state(checkpoint))
