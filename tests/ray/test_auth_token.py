"""Ray's token file is its owner's alone, whatever the umask was when it was made."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tats_ray.actors.auth_token import guard_token
from tats_ray.errors import StorageError
from tests.runs.command import ROOT

_GUARD = "from tats_ray.actors.auth_token import guard_token; guard_token(create=True)"


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0)
    yield tmp_path
    os.umask(before)


def _names(folder):
    return [file.name for file in folder.iterdir()]


def _mode(file):
    return file.stat().st_mode & 0o777


def test_a_missing_file_is_made_and_kept(home):
    file = home / ".ray" / "auth_token"
    guard_token(create=True)
    assert _mode(file) == 0o600
    token = file.read_text()
    assert len(token) == 64
    guard_token(create=True)
    assert file.read_text() == token
    assert _names(file.parent) == ["auth_token"]


def test_commands_that_start_together_share_one(home):
    started = [subprocess.Popen([sys.executable, "-c", _GUARD], cwd=ROOT) for _ in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    assert _names(home / ".ray") == ["auth_token"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_file_that_others_could_read_is_mended_with_a_warning(home, capsys, monkeypatch, mode):
    file = home / "token"
    file.write_text("t" * 64)
    file.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    guard_token(create=True)
    assert _mode(file) == 0o600
    assert "could read the token" in capsys.readouterr().out
    guard_token(create=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "given", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "no"}]
)
def test_nothing_is_made_where_no_file_is_read_or_another_one(home, monkeypatch, given):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    guard_token(create=True)
    assert _names(home) == []


def test_a_cluster_that_is_joined_needs_its_own_token(home):
    guard_token(create=False)
    assert _names(home) == []


def test_a_place_that_cannot_be_written_is_named(home):
    (home / ".ray").write_text("in the way")
    with pytest.raises(StorageError, match=r"auth_token"):
        guard_token(create=True)
