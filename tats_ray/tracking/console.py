"""One line per interval for people, and a table at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tats_ray.errors import one_line
from tats_ray.tracking.metrics_file import Record

_WARNING_SECONDS = 60.0
_console = Console(highlight=False, markup=False, emoji=False)

# name in the record -> label and format on the line
_COLUMNS = {
    "loss": ("loss", "{:.4f}"),
    "rollout/error": ("error", "{:.4f}"),
    "ppo/entropy": ("entropy", "{:.2f}"),
    "ppo/kl": ("kl", "{:.1e}"),
    "ppo/clip_fraction": ("clip", "{:.0%}"),
    "rollout/staleness": ("staleness", "{:.1f}"),
    "time/clips_per_second": ("clips/s", "{:.1f}"),
    "time/data_share": ("data", "{:.0%}"),
}
# Constants while each draw is learned from once, which the ratio tells: no column then.
_OF_SEVERAL_UPDATES = frozenset({"ppo/kl", "ppo/clip_fraction"})


def log(text: str) -> None:
    """A plain line."""
    _console.print(one_line(text), soft_wrap=True)


def log_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table whose texts are shown as they are."""
    head = map(one_line, header)
    table = Table(*head, title=one_line(title), title_justify="left", show_header=any(header))
    for row in rows:
        table.add_row(*map(one_line, row))
    _console.print(table)


class RepeatedWarning:
    """A warning, at most once a minute while its cause lasts, and one line when that is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._due, self._lasts = clock, -math.inf, False

    def log(self, text: str) -> None:
        if self._clock() >= self._due:
            self._due, self._lasts = self._clock() + _WARNING_SECONDS, True
            log(text)

    def end(self, text: str) -> None:
        if self._lasts:
            log(text)
        self._lasts = False


def log_record(record: Record, steps: int) -> None:
    """`step 120/600  loss ...  eta ...`."""
    parts = [f"step {record.step:>{len(str(steps))}}/{steps}"]
    hidden = _OF_SEVERAL_UPDATES if record.metrics.get("ppo/ratio_max", 1.0) < 1.001 else ()
    for name, (label, form) in _COLUMNS.items():
        if name in record.metrics and name not in hidden:
            parts.append(f"{label} {form.format(record.metrics[name])}")
    seconds = record.metrics.get("time/step_seconds")
    if seconds is not None:
        parts.append(f"eta {_clock(seconds * (steps - record.step))}")
    log("  ".join(parts))


def log_summary(title: str, summary: dict[str, Any]) -> None:
    """The run's result."""
    log_table(title, ["", ""], ([name, _shown(value)] for name, value in summary.items()))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
