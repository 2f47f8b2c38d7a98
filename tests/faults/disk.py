"""Small real disks that can fill up or turn read-only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


class SmallDisc:
    """A tmpfs of a few KiB; skips the test where mounting is forbidden."""

    def __init__(self, path: Path, kib: int) -> None:
        self.path = path
        path.mkdir()
        done = _mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(path))
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here ({done.stderr.strip()})")

    def fill(self, spare: int = 0) -> None:
        """Leaves about `spare` bytes."""
        free = os.statvfs(self.path)
        with (self.path / "ballast").open("wb", buffering=0) as file:
            file.write(bytes(free.f_bavail * free.f_frsize - spare))

    def free(self) -> None:
        (self.path / "ballast").unlink()

    def resize(self, kib: int) -> None:
        _mount("-o", f"remount,size={kib}k", str(self.path))

    def make_read_only(self) -> None:
        assert _mount("-o", "remount,ro", str(self.path)).returncode == 0

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=False)


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
