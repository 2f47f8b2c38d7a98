"""Images in lines and columns with a title, labels, colour bars and notes, drawn pixel by pixel:
every image has its place, whatever stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tats_ray.errors import one_line
from tats_ray.tracking.panels import Scale, coloured

_GAP, _MARGIN = 4, 10  # pixels between images, around all
_BAR = 10  # height of a colour bar
_BAR_COLUMN = 96  # width of the column of colour bars
_TEXT, _SMALL = 14, 11  # sizes of type, pixels
_LINE = 1.35  # height of a line of text in sizes of type
_INK, _PALE, _BACKGROUND = (20, 20, 20), (90, 90, 90), (255, 255, 255)


@dataclass(frozen=True)
class Sheet:
    """What is drawn. All images have the same size.

    Attributes:
        headers: above each column.
        labels: left of each line; may have several lines of text.
        images: by line and column, uint8 [H, W, 3]; None leaves a place empty.
        line_scales: colour bars right of lines.
        column_scales: colour bars below headers.
    """

    title: str
    headers: Sequence[str]
    labels: Sequence[str]
    images: Sequence[Sequence[np.ndarray | None]]
    notes: Sequence[str] = ()
    line_scales: Sequence[Scale | None] = ()
    column_scales: Sequence[Scale | None] = ()


@dataclass
class _Layout:
    """Places in pixels."""

    height: int  # of an image
    width: int
    left: int  # of the first column
    right: int  # end of the last column
    total: int  # width of the sheet
    top: int = field(default=0)  # of the first line

    def column(self, number: int) -> int:
        return self.left + number * (self.width + _GAP)

    def line(self, number: int) -> int:
        return self.top + number * (self.height + _GAP)


def draw_sheet(sheet: Sheet) -> np.ndarray:
    """The sheet as uint8 [H, W, 3]; both sides are even, as video needs them."""
    from PIL import Image, ImageDraw

    layout = _place(sheet)
    title = _wrapped(sheet.title, layout.total - 2 * _MARGIN, _TEXT)
    notes = [line for note in sheet.notes for line in _wrapped(note, layout.total - 20, _SMALL)]
    head = _MARGIN + _height(len(title), _TEXT) + _GAP
    bars = head + (_height(1, _SMALL) if any(sheet.headers) else 0)
    layout.top = bars + (_BAR + _height(1, _SMALL) + _GAP if any(sheet.column_scales) else 0)
    foot = layout.line(len(sheet.images)) + _GAP
    bottom = foot + _height(len(notes), _SMALL) + _MARGIN
    image = Image.new("RGB", (_even(layout.total), _even(bottom)), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    _write(draw, (_MARGIN, _MARGIN), title, _TEXT, _INK)
    for column, header in enumerate(sheet.headers):
        place = (layout.column(column), head)
        _write(draw, place, _wrapped(header, layout.width, _SMALL)[:1], _SMALL, _PALE)
    for number, line in enumerate(sheet.images):
        _draw_line(image, draw, sheet, layout, number, line)
    for column, scale in enumerate(sheet.column_scales):
        if scale is not None:
            _draw_bar(image, draw, (layout.column(column), bars + 2), layout.width, scale)
    _write(draw, (_MARGIN, foot), notes, _SMALL, _PALE)
    return np.asarray(image)


def _place(sheet: Sheet) -> _Layout:
    known = next(one for line in sheet.images for one in line if one is not None)
    height, width = known.shape[:2]
    longest = max(
        (
            _font(_TEXT).getlength(one_line(part))
            for text in sheet.labels
            for part in text.split("\n")
        ),
        default=0.0,
    )
    left = _MARGIN + (int(longest) + 2 * _GAP if longest else 0)
    right = left + len(sheet.images[0]) * (width + _GAP) - _GAP
    extra = _GAP + _BAR_COLUMN if any(sheet.line_scales) else 0
    return _Layout(height, width, left, right, right + extra + _MARGIN)


def _draw_line(
    image: Any,
    draw: Any,
    sheet: Sheet,
    layout: _Layout,
    number: int,
    line: Sequence[np.ndarray | None],
) -> None:
    from PIL import Image

    top = layout.line(number)
    middle = top + layout.height // 2
    if sheet.labels:
        texts = [one_line(part) for part in sheet.labels[number].split("\n")]
        _write(draw, (_MARGIN, middle - _height(len(texts), _TEXT) // 2), texts, _TEXT, _INK)
    for column, one in enumerate(line):
        if one is not None:
            image.paste(Image.fromarray(one), (layout.column(column), top))
    scale = sheet.line_scales[number] if sheet.line_scales else None
    if scale is not None:
        place = (layout.right + 2 * _GAP, middle - _BAR)
        _draw_bar(image, draw, place, _BAR_COLUMN - 2 * _GAP, scale)


def _draw_bar(image: Any, draw: Any, place: tuple[int, int], width: int, scale: Scale) -> None:
    """A colour bar with the values of both its ends below."""
    from PIL import Image

    ramp = coloured(np.linspace(0.0, scale.top, width), scale)
    image.paste(Image.fromarray(np.repeat(ramp[None], _BAR, axis=0)), place)
    top = f"{scale.top:.3g}"
    left, below = place[0], place[1] + _BAR + 1
    _write(draw, (left, below), ["0"], _SMALL, _PALE)
    end = left + width - int(_font(_SMALL).getlength(top))
    _write(draw, (end, below), [top], _SMALL, _PALE)


def _write(
    draw: Any, place: tuple[int, int], lines: Sequence[str], size: int, colour: tuple[int, int, int]
) -> None:
    for number, text in enumerate(lines):
        draw.text((place[0], place[1] + _height(number, size)), text, colour, _font(size))


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """Lines that are no wider than so many pixels, cut between words where that is possible."""
    font, lines, line = _font(size), [], ""
    for word in one_line(text).split(" "):
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = ""
        for sign in word:
            if line and font.getlength(line + sign) > width:
                lines.append(line)
                line = ""
            line += sign
    return [*lines, line]


@cache
def _font(size: int) -> Any:
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _height(lines: int, size: int) -> int:
    return round(lines * size * _LINE)


def _even(number: int) -> int:
    return number + number % 2
