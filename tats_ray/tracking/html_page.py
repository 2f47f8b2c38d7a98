"""Pages that stand alone: HTML with everything in one file, and nothing in it that runs.

Whatever a user has written (names, settings, paths) goes through `text`, and the page's own policy
forbids scripts and everything from outside.
"""

from __future__ import annotations

import base64
import html
import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NewType

from tats_ray.errors import one_line
from tats_ray.storage import replacing

Html = NewType("Html", str)  # markup; any other text is escaped first

_KINDS = {".png": "image/png", ".gif": "image/gif"}
# The namespaces of SVG are not needed inside of HTML, and are the only addresses in a figure.
_NAMESPACE = re.compile(r' xmlns(?::\w+)?="[^"]*"')
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 16px; color: #1a1a1a; background: #fff;
  font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 32px 0 8px; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 16px 0 4px; overflow-wrap: anywhere; }
p { margin: 4px 0 8px; max-width: 75ch; overflow-wrap: anywhere; }
.small { color: #555; font-size: .85rem; }
.cards, .charts { display: grid; gap: 12px; }
.cards { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.cards div { border: 1px solid #ddd; border-radius: 6px; padding: 8px 10px; }
.cards b { display: block; font-size: 1.15rem; overflow-wrap: anywhere; }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); }
figure { margin: 0; }
figure svg, figure img { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
.wide img { width: auto; max-width: 100%; }
@media (max-width: 800px) { .wide img { max-width: none; } }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: 4px 12px 4px 0;
  border-bottom: 1px solid #eee; }
.values td { overflow-wrap: anywhere; }
summary { cursor: pointer; padding: 6px 0; }
"""


def text(value: object) -> Html:
    """Any value as text that is shown as it is and does nothing."""
    return Html(html.escape(one_line(str(value)), quote=True))


def join(parts: Iterable[Html]) -> Html:
    return Html("\n".join(parts))


def element(tag: str, content: Html, kind: str = "") -> Html:
    """`<tag class="kind">content</tag>`."""
    opening = f'{tag} class="{kind}"' if kind else tag
    return Html(f"<{opening}>{content}</{tag}>")


def paragraph(words: str, kind: str = "") -> Html:
    return element("p", text(words), kind)


def section(title: str, *parts: Html) -> Html:
    """A heading and what belongs to it."""
    return element("section", join([element("h2", text(title)), *parts]))


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """A table that scrolls within itself where the page is too narrow."""
    head = join(element("th", text(cell)) for cell in header)
    body = [join(element("td", text(cell)) for cell in row) for row in rows]
    lines = [element("tr", line) for line in [*([head] if any(header) else []), *body]]
    kind = "values" if len(header) == 2 else ""
    return element("div", element("table", join(lines), kind), "wide")


def cards(values: Iterable[tuple[str, object]]) -> Html:
    """Single numbers with what they are."""
    boxes = (
        element("div", join([text(name), element("b", text(value))])) for name, value in values
    )
    return element("div", join(boxes), "cards")


def details(title: str, content: Html) -> Html:
    """What is shown after a click or tap."""
    return element("details", join([element("summary", text(title)), content]))


def embedded(file: Path, caption: str) -> Html:
    """A PNG or GIF as part of the page; it scrolls sideways where it is wider.

    Raises:
        OSError: it cannot be read.
    """
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    image = f'<img alt="{text(caption)}" src="data:{_KINDS[file.suffix]};base64,{data}">'
    words = element("figcaption", text(caption), "small")
    return element("figure", join([Html(image), words]), "wide")


def figure(width: float, height: float, fill: Callable[[Any], None]) -> Html:
    """A matplotlib figure as SVG in the page, as wide as there is room.

    Args:
        width, height: inches; they set the size of type relative to the figure.
        fill: draws into the figure. Texts become outlines of letters.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with (
        rc_context({"text.parse_math": False, "svg.fonttype": "path", "svg.hashsalt": "tats_ray"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing")
        drawn = Figure(figsize=(width, height), layout="constrained")
        fill(drawn)
        buffer = io.StringIO()
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = _METADATA.sub("", svg[svg.index("<svg") :])
    return element("figure", Html(_NAMESPACE.sub("", _without_size(svg)).strip()))


def _without_size(svg: str) -> str:
    """The outermost element keeps its view box only, so that the page gives the size."""
    opening, rest = svg.split(">", 1)
    return re.sub(r' (?:width|height)="[^"]*"', "", opening) + ">" + rest


def write_page(file: Path, title: str, parts: Iterable[Html]) -> Path:
    """Writes the page as a whole; returns the file.

    Raises:
        StorageError: disk full or read-only; what was there before stays.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    content = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{join(parts)}
</body>
</html>
"""
    with replacing(file) as aside:
        aside.write_text(content, encoding="utf-8")
    return file
