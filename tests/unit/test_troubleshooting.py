"""docs/troubleshooting.md knows every error that a user can meet."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tats_ray import errors

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
CLASSES = sorted(
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.TatsRayError)
)
BASES = {"TatsRayError", "SetupError"}  # never raised themselves
ANY = "\x00"  # stands for what a message is filled with
# Settings have too many messages of their own; the page has their forms.
EXEMPT = {"ConfigError"}


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    return ANY


def _messages() -> list[tuple[str, str]]:
    """Place and template of every error that the package makes."""
    found = []
    for path in sorted((ROOT / "tats_ray").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            if node.func.id in set(CLASSES) - EXEMPT:
                video = issubclass(getattr(errors, node.func.id), errors.VideoDecodeError)
                parts = node.args if video else node.args[:1]
                template = ": ".join(_text(part) for part in parts)
                if re.search(r"\w{3}", template):  # else it passes another message on
                    found.append((f"{path.name}:{node.lineno}", template))
    return found


def _documented() -> list[re.Pattern[str]]:
    spans = re.findall(r"`((?:[^`\\]|\\`)+)`", PAGE.replace("\\`", "\x01"))
    patterns = (span.replace("\x01", "`") for span in spans if " " in span or ": " in span)
    return [re.compile(re.escape(span).replace("…", ".*"), re.DOTALL) for span in patterns]


@pytest.mark.parametrize("name", sorted(set(CLASSES) - BASES))
def test_every_kind_of_error_is_there(name):
    assert f"`{name}`" in PAGE


def test_every_message_is_there():
    patterns = _documented()
    missing = [
        f"{place}: {template.replace(ANY, '…')}"
        for place, template in _messages()
        if not any(pattern.fullmatch(template) for pattern in patterns)
    ]
    assert missing == []


def test_the_search_finds_messages_and_no_pattern_fits_all():
    assert len(_messages()) > 80
    for text in ("a message that nobody wrote", "file.txt: another fault; mend it"):
        assert not any(pattern.fullmatch(text) for pattern in _documented())
