"""The token of a user's Ray clusters: a file that its owner alone can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tats_ray.storage import writing
from tats_ray.tracking.console import log

OTHERS = 0o077  # permissions of group and world
_WORLD = 0o007


def guard_token(*, create: bool) -> None:
    """Makes or mends the file before Ray reads it; Ray leaves its permissions to the umask.

    Args:
        create: whether a missing file is made, as for a cluster that this process starts.

    Raises:
        StorageError: it cannot be made.
    """
    file = token_file()
    if file is None:
        return
    if file.exists():
        _mend(file)
    elif create and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        _create(file)


def token_file() -> Path | None:
    """The file that Ray reads; None where the environment has the token or asks for none."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return None
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(given) if given else Path.home() / ".ray" / "auth_token"


def _create(file: Path) -> None:
    """Written aside and linked: of two commands that start together, one makes it for both."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as content:
            content.write(secrets.token_hex(32))
        try:
            os.link(aside, file)
        except FileExistsError:
            pass
        finally:
            aside.unlink()


def _mend(file: Path) -> None:
    status = file.stat()
    mode = status.st_mode
    if not mode & OTHERS:
        return
    if status.st_uid != os.getuid() and not mode & _WORLD:
        return  # its owner gave it to our group, as Kubernetes does with a mounted Secret
    seen = f"{file}: other users of this machine could read the token of your Ray clusters"
    try:
        file.chmod(mode & ~OTHERS & 0o777)
    except OSError:
        log(f"{seen}, and still can: make the file yours alone (mode 600)")
        return
    log(f"{seen}; it is yours alone now. If others use the machine, delete it: a new one is made")
