"""A whole video as trained runs see it: MP4, GIF and PNG, one line per run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from tats_ray.data.video_writer import write_h264
from tats_ray.errors import ConfigError
from tats_ray.evaluation.trained_run import TrainedRun, VideoWindow
from tats_ray.storage import replacing
from tats_ray.tracking.mask_history import save_gif
from tats_ray.tracking.panels import Look, Panel, clip_panels
from tats_ray.tracking.pictures import notes, save_image, slices_sheet
from tats_ray.tracking.sheet import Sheet, draw_sheet

GIF_FRAMES = 100  # that a GIF has at most: more make a file that browsers show slowly
_LONGEST_FRAME = 10_000  # milliseconds


def check_runs(runs: Sequence[TrainedRun]) -> None:
    """Raises: ConfigError: they do not look at the same frames."""
    first = runs[0].settings
    for other in (run.settings for run in runs[1:]):
        pairs = {
            "data.frames": (first.data.frames, other.data.frames),
            "data.stride": (first.data.stride, other.data.stride),
            "model.tubelet": (first.model.tubelet, other.model.tubelet),
        }
        for key, (here, there) in pairs.items():
            if here != there:
                raise ConfigError(
                    f"{key} is {here} in run {first.run.name} and {there} in run "
                    f"{other.run.name}: visualize them one by one"
                )


def visualize(video: Path, runs: Sequence[TrainedRun], folder: Path) -> list[Path]:
    """Writes `<video>_masks.mp4` (all frames that the runs look at, in the video's own time),
    `.gif` (its first `GIF_FRAMES` frames) and `.png` (the window in the middle, slice by slice);
    returns them.

    Args:
        runs: as `check_runs` wants them.

    Raises:
        VideoDecodeError: the video cannot be decoded.
        StorageError: disk full or read-only; what was there before stays.
    """
    drawing = _VideoDrawing(video, runs)
    mp4, gif, png = (folder / f"{video.stem}_masks{suffix}" for suffix in (".mp4", ".gif", ".png"))
    with replacing(mp4) as aside:
        write_h264(aside, drawing.images(), drawing.rate())
    frame = min(round(1000 / drawing.rate()), _LONGEST_FRAME)
    save_gif(drawing.first, [frame] * len(drawing.first), gif)
    assert drawing.middle is not None, "a video has a window in the middle"
    save_image(drawing.middle, png)
    return [mp4, gif, png]


class _VideoDrawing:
    """Draws the images of a video one by one, and keeps what GIF and PNG are made of.

    Attributes:
        first: the first images.
        middle: slices of the window in the middle; None before it is drawn.
    """

    def __init__(self, video: Path, runs: Sequence[TrainedRun]) -> None:
        self._video, self._runs = video, runs
        self._windows = zip(*(run.inspect_video(video) for run in runs), strict=True)
        self._next = next(self._windows)  # tells the frame rate, and whether the video is sound
        self._tops = _tops(
            [self._panels(run, seen, {}, True) for run, seen in self._lines(self._next)]
        )
        self.first: list[np.ndarray] = []
        self.middle: np.ndarray | None = None
        self._shape: tuple[int, ...] = ()  # of every image

    def rate(self) -> Fraction:
        """Images per second."""
        seen = self._next[0]
        rate = Fraction(seen.frames_per_second).limit_denominator(1001)
        return rate / self._runs[0].settings.data.stride

    def images(self) -> Iterator[np.ndarray]:
        """All of them, uint8 [H, W, 3] of one size; can be asked for once."""
        yield from self._window(self._next)
        for window in self._windows:
            yield from self._window(window)

    def _window(self, window: tuple[VideoWindow, ...]) -> Iterator[np.ndarray]:
        seen = window[0]
        if seen.number == seen.windows // 2:
            self.middle = draw_sheet(self._slices(window))
        # A GIF of large images takes longer than all else.
        missing = GIF_FRAMES - len(self.first)
        self.first += islice(self._drawn(window, shrunk=True), missing)
        for image in self._drawn(window, shrunk=False):
            self._shape = self._shape or image.shape
            yield _sized(image, self._shape)

    def _drawn(self, window: tuple[VideoWindow, ...], *, shrunk: bool) -> Iterator[np.ndarray]:
        """The images of a window in turn."""
        lines = [
            {panel.kind: panel for panel in self._panels(run, part, self._tops, shrunk)}
            for run, part in self._lines(window)
        ]
        # The first run's kinds in their order, then what only others have.
        kinds = list(dict.fromkeys(kind for line in lines for kind in line))
        for place, frame in zip(window[0].shown, window[0].frames, strict=True):
            yield draw_sheet(self._sheet(window, lines, kinds, place, frame))

    def _sheet(
        self,
        window: tuple[VideoWindow, ...],
        lines: list[dict[str, Panel]],
        kinds: list[str],
        place: int,
        frame: int,
    ) -> Sheet:
        """One image of the video: a line per run, a column per kind."""
        seen = window[0]
        side = max(panel.images.shape[1] for line in lines for panel in line.values())
        known = {kind: line[kind] for line in reversed(lines) for kind in line}
        seconds = frame / seen.frames_per_second
        return Sheet(
            title=f"{self._video.name} · {seconds:5.2f} s · {self._which(seen)}",
            headers=[_header(known[kind]) for kind in kinds],
            labels=[_label(run, part) for run, part in self._lines(window)],
            images=[
                [
                    _fitted(line[kind].images[place], side) if kind in line else None
                    for kind in kinds
                ]
                for line in lines
            ],
            notes=notes(self._runs[0].settings, seen.inspection),
            column_scales=[known[kind].scale for kind in kinds],
        )

    def _slices(self, window: tuple[VideoWindow, ...]) -> Sheet:
        """The window slice by slice; all runs see the same frames, which stand there once."""
        panels = []
        for number, (run, seen) in enumerate(self._lines(window)):
            look = Look(tops=self._tops)
            shown = clip_panels(seen.inspection, 0, run.settings, look)
            name = f"{run.settings.run.name}\n" if len(window) > 1 else ""
            for panel in shown[1 if number else 0 :]:
                kind = panel.kind if panel.kind == "frames" else f"{name}{panel.kind}"
                panels.append(Panel(kind, panel.unit, panel.images, panel.scale))
        side = max(panel.images.shape[1] for panel in panels)
        panels = [
            Panel(one.kind, one.unit, np.stack([_fitted(image, side) for image in one.images]),
                  one.scale)
            for one in panels
        ]  # fmt: skip
        title = " | ".join(
            _label(run, seen).replace("\n", ", ") for run, seen in self._lines(window)
        )
        return slices_sheet(
            f"{self._video.name} · {self._which(window[0])} · {title}",
            panels,
            notes(self._runs[0].settings, window[0].inspection),
        )

    @staticmethod
    def _panels(
        run: TrainedRun, seen: VideoWindow, tops: dict[str, float], shrunk: bool
    ) -> list[Panel]:
        look = Look(shrunk=shrunk, every_frame=True, tops=tops)
        return clip_panels(seen.inspection, 0, run.settings, look)

    def _lines(self, window: tuple[VideoWindow, ...]) -> list[tuple[TrainedRun, VideoWindow]]:
        return list(zip(self._runs, window, strict=True))

    @staticmethod
    def _which(seen: VideoWindow) -> str:
        return f"window {seen.number + 1} of {seen.windows}"


def _tops(lines: list[list[Panel]]) -> dict[str, float]:
    """Kind -> the highest value that any run has: colours mean the same in all lines and windows.
    Higher values of later windows have the last colour."""
    tops: dict[str, float] = {}
    for panel in (panel for line in lines for panel in line):
        if panel.scale is not None:
            tops[panel.kind] = max(tops.get(panel.kind, 0.0), panel.scale.top)
    return tops


def _header(panel: Panel) -> str:
    return f"{panel.kind} ({panel.unit})" if panel.unit else panel.kind


def _label(run: TrainedRun, seen: VideoWindow) -> str:
    visible = seen.inspection.visible.shape[1]
    hidden = 1 - visible / run.grid.tokens
    settings = run.settings
    lines = [settings.run.name, settings.masking.system, f"step {run.step}", f"{hidden:.1%} hidden"]
    return "\n".join(lines)


def _sized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """With white below, or cut off there: a title that takes another line must not change the size
    of a video."""
    if image.shape == shape:
        return image
    sized = np.full(shape, 255, dtype=np.uint8)
    rows = min(len(image), len(sized))
    sized[:rows] = image[:rows]
    return sized


def _fitted(image: np.ndarray, side: int) -> np.ndarray:
    """An image of a run with smaller ones, at the side of the largest."""
    from PIL import Image

    if len(image) == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))
