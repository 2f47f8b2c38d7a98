"""Texts of users reach tables and pictures as they are, and do nothing there."""

from __future__ import annotations

import unicodedata
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from tats_ray.errors import ConfigError, one_line
from tats_ray.tracking.console import log, log_summary
from tats_ray.tracking.pictures import figure_in
from tats_ray.tracking.probe_report import log_probe, save_confusion

TRICKY = [
    "$", "$x$", "$\\frac{", "a_b^c$", "[red]", "[/red]", "[bold", "[link=x]y[/link]", ":smile:",
    "😀", "👩‍👩‍👧", "two\nlines", "tab\there", "\x1b[31mred", "\x9b1m", "\u202egnp.exe", "\ufeff",
    "=1+1", "<b>", "|", "`", "_hidden", "", "%s", "{0}", "\udcff", "視頻", "e\u0301", "\\n",
    "\u2028",
]  # fmt: skip
TEXT = st.sampled_from(TRICKY) | st.text(max_size=12)


def _results(names):
    counts = np.eye(len(names), dtype=int)
    return {
        "top1": 1.0,
        "classes": dict.fromkeys(names, 1.0),
        "confusion": counts.tolist(),
    }


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(TEXT, min_size=1, max_size=3, unique=True))
def test_a_probe_shows_any_class(names, wide, capsys, tmp_path):
    capsys.readouterr()
    log_probe({"linear": _results(names)})
    lines = capsys.readouterr().out.splitlines()
    for name in names:
        assert [line for line in lines if one_line(name) in line], name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_confusion(_results(names), names[0], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes()[:4] == b"\x89PNG"


@given(text=TEXT)
def test_a_line_and_a_summary_stay_what_they_are(text):
    shown = one_line(text)
    unseen = [sign for sign in shown if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]
    assert unseen == []
    assert str(ConfigError(text)) == shown
    assert one_line(shown) == shown


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text="\U000e0080")  # of no width
@example(text="\U000e0100")
@given(text=TEXT)
def test_the_terminal_gets_the_text_and_nothing_else(text, wide, capsys):
    capsys.readouterr()
    log(f"<{text}>")
    log_summary(text, {text: text})
    line, *table = capsys.readouterr().out.splitlines()
    assert line == f"<{one_line(text)}>"
    assert [row for row in table if row.count(one_line(text)) >= 2], table


def test_a_dollar_is_a_dollar_in_pictures(tmp_path):
    """The reference is matplotlib's own way to write one."""
    with figure_in(tmp_path / "ours.png", 3, 1) as figure:
        figure.text(0.1, 0.5, "$x$ and $")
    reference = Figure(figsize=(3, 1))
    FigureCanvasAgg(reference)
    reference.text(0.1, 0.5, r"\$x\$ and \$")
    reference.savefig(tmp_path / "reference.png", dpi=100, bbox_inches="tight")
    assert np.array_equal(imread(tmp_path / "ours.png"), imread(tmp_path / "reference.png"))


def test_a_name_of_pages_leaves_room_for_the_picture(tmp_path):
    save_confusion(_results(["a" * 5000, "b"]), "t", tmp_path / "c.png")
    assert max(imread(tmp_path / "c.png").shape) < 2000
