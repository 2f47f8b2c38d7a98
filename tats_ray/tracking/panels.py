"""The images of a clip that pictures and videos consist of: enlarged, with the token grid, the
outlines of true objects, and hatching where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tats_ray.config import Config
from tats_ray.evaluation.inspection import Inspection

LEAST_SIDE = 112  # of an image, pixels
MOVING, STATIC = (0, 230, 120), (255, 160, 0)  # colours of outlines
_RIM = (15, 15, 15)  # around outlines, so that they are seen on any colour
HIDDEN = 128  # grey of tokens that the encoder does not see
_PAPER, _STRIPE, _PERIOD = 225, 110, 6  # of hatching: greys, pixels between stripes
_GRID, _GRID_SHARE = 128, 0.45


class Scale(NamedTuple):
    """Colours of a map: the first one is 0, the last one `top` and above."""

    colours: str  # a colour map of matplotlib
    top: float


@dataclass(frozen=True)
class Panel:
    """One kind of image of a clip."""

    kind: str
    unit: str  # of a map; empty for images
    images: np.ndarray  # uint8 [T, side, side, 3]
    scale: Scale | None


@dataclass(frozen=True)
class Look:
    """How a clip is shown.

    Attributes:
        shrunk: whether large images are made smaller; small ones are enlarged to `LEAST_SIDE`.
        every_frame: else the first frame of each time slice of tokens.
        tops: kind -> top of its scale, instead of the clip's own highest value.
    """

    shrunk: bool = False
    every_frame: bool = False
    tops: Mapping[str, float] | None = None


def clip_panels(inspection: Inspection, clip: int, config: Config, look: Look) -> list[Panel]:
    """Frames, the sampler's map, motion, visible tokens, reconstruction and error of one clip, as
    far as the inspection has them."""
    drawing = _Drawing(inspection, clip, config, look)
    panels = [drawing.frames()]
    if inspection.log_probs is not None:
        # 1.0 is the probability of a uniform policy.
        relative = inspection.log_probs[clip].exp() * config.grid.tokens
        panels.append(drawing.map("sampler", "x uniform", relative, "viridis"))
    if inspection.speed is not None:
        panels.append(drawing.map("motion", "pixels", inspection.speed[clip], "magma"))
    panels.append(drawing.visible())
    if inspection.reconstruction is not None:
        panels.append(drawing.reconstruction(inspection.reconstruction[clip]))
    if inspection.error is not None:
        error = drawing.map("error", "squared", inspection.error[clip], "inferno")
        hatch(error.images, drawing.shown)
        draw_grid(error.images, drawing.cell)
        panels.append(drawing.outlined(error))
    return panels


class _Drawing:
    """What all images of a clip share.

    Attributes:
        cell: pixels per side of a token.
        shown: bool [T, side, side], pixels of visible tokens.
    """

    def __init__(self, inspection: Inspection, clip: int, config: Config, look: Look) -> None:
        self._look, self._grid = look, config.grid
        self._size, tubelet = config.data.size, config.model.tubelet
        self.cell = cell_pixels(self._size, config.model.patch, look.shrunk)
        frames = config.data.frames
        self._chosen = np.arange(0, frames, 1 if look.every_frame else tubelet)
        self._slices = self._chosen // tubelet
        self._clip = self._fitted(inspection.pixels[clip])
        seen = np.zeros(self._grid.tokens, dtype=bool)
        seen[inspection.visible[clip].numpy()] = True
        self.shown = self._per_token(seen)
        self._outlines: list[tuple[np.ndarray, tuple[int, int, int]]] = []  # dark ones first
        if inspection.objects is not None:
            masks = inspection.objects[clip].numpy()[:, self._chosen]
            for mask, colour in zip(masks, (MOVING, STATIC), strict=True):
                wide = resized(mask.astype(np.float32)[..., None], self._side)[..., 0] > 0.5
                self._outlines.insert(0, (border(~wide), _RIM))
                self._outlines.append((border(wide), colour))

    @property
    def _side(self) -> int:
        return self.cell * self._grid.rows

    def _fitted(self, pixels: Tensor) -> np.ndarray:
        """The frames that are shown: float32 [3, T, S, S] -> uint8 [t, side, side, 3]."""
        images = pixels[:, self._chosen].permute(1, 2, 3, 0).numpy()
        return (resized(images, self._side) * 255).round().astype(np.uint8)

    def _per_token(self, values: np.ndarray) -> np.ndarray:
        """[N] or [N, 3] -> a value per pixel, [T, side, side] or [T, side, side, 3]."""
        grid = self._grid
        maps = values.reshape(grid.time, grid.rows, grid.columns, *values.shape[1:])
        return maps[self._slices].repeat(self.cell, axis=1).repeat(self.cell, axis=2)

    def outlined(self, panel: Panel) -> Panel:
        """With the outlines of true objects where they are known."""
        for edge, colour in self._outlines:
            panel.images[edge] = colour
        return panel

    def frames(self) -> Panel:
        return self.outlined(self._image("frames", self._clip.copy()))

    def visible(self) -> Panel:
        shown = np.where(self.shown[..., None], self._clip, np.uint8(HIDDEN))
        return self.outlined(self._image("visible", shown))

    def reconstruction(self, pixels: Tensor) -> Panel:
        return self._image("reconstruction", self._fitted(pixels))

    def _image(self, kind: str, images: np.ndarray) -> Panel:
        draw_grid(images, self.cell)
        return Panel(kind, "", images, None)

    def map(self, kind: str, unit: str, values: Tensor, colours: str) -> Panel:
        top = float(values.max()) or 1.0
        if self._look.tops is not None:
            top = self._look.tops.get(kind, top)
        scale = Scale(colours, top)
        images = self._per_token(coloured(values.numpy(), scale))
        draw_grid(images, self.cell)
        return self.outlined(Panel(kind, unit, images, scale))


def coloured(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Values of any shape as colours, uint8 [..., 3]."""
    from matplotlib import colormaps

    shares = np.clip(values / scale.top, 0.0, 1.0)
    return (colormaps[scale.colours](shares)[..., :3] * 255).round().astype(np.uint8)


def cell_pixels(size: int, patch: int, shrunk: bool) -> int:
    """Pixels per side of a token, a whole part or multiple of what it has, so that an image has at
    least `LEAST_SIDE`.

    Args:
        size: side of the model input, pixels.
        patch: side of a token in it.
        shrunk: as of `Look`.
    """
    if size < LEAST_SIDE or not shrunk:
        return patch * -(-LEAST_SIDE // size)
    divisors = (part for part in (4, 3, 2) if patch % part == 0 and size // part >= LEAST_SIDE)
    return patch // next(divisors, 1)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Float [T, S, S, C] -> [T, side, side, C]: pixels are repeated, or averaged in blocks."""
    size = images.shape[1]
    if side >= size:
        return images.repeat(side // size, axis=1).repeat(side // size, axis=2)
    part = size // side
    blocks = images.reshape(len(images), side, part, side, part, -1)
    return blocks.mean(axis=(2, 4))


def border(masks: np.ndarray) -> np.ndarray:
    """The outermost pixels of masks, bool [T, H, W]: those with a neighbour outside, above, below,
    left or right. The edge of the image is no neighbour."""
    around = np.pad(masks, ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = around[:, :-2, 1:-1] & around[:, 2:, 1:-1]
    inner &= around[:, 1:-1, :-2] & around[:, 1:-1, 2:]
    return masks & ~inner


def draw_grid(images: np.ndarray, cell: int) -> None:
    """Draws the borders between tokens into uint8 [T, H, W, 3]."""
    for lines in (images[:, cell::cell], images[:, :, cell::cell]):
        lines[:] = (lines * (1 - _GRID_SHARE) + _GRID * _GRID_SHARE).round().astype(np.uint8)


def hatch(images: np.ndarray, where: np.ndarray) -> None:
    """Draws diagonal stripes on paper into uint8 [T, H, W, 3], where bool [T, H, W] is true."""
    rows, columns = np.indices(images.shape[1:3])
    stripes = np.where((rows + columns) % _PERIOD < 2, _STRIPE, _PAPER).astype(np.uint8)
    images[where] = np.broadcast_to(stripes[..., None], images.shape)[where]
