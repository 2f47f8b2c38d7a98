"""MLflow's SQLite file, which comes into being whole or not at all.

MLflow makes its tables in many steps, each of them final. A file of a run that was killed, or whose
disc was full, in between would never open again: "table datasets already exists".
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_PREFIX = "sqlite:///"


def make_sqlite_file(uri: str) -> None:
    """Makes the database of a `sqlite:///` URI, unless its file exists; ignores other URIs.

    Runs that start together wait for the one that makes it.

    Raises:
        OSError, sqlalchemy.exc.OperationalError: the file cannot be written.
    """
    name = uri.removeprefix(_PREFIX).partition("?")[0]
    path = Path(name)
    if not uri.startswith(_PREFIX) or name in ("", ":memory:") or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists():
            _make(path.with_name(f".{path.name}.new")).rename(path)
    finally:
        os.close(folder)


def _make(draft: Path) -> Path:
    """A new database with MLflow's tables."""
    from mlflow.store.db import utils

    draft.unlink(missing_ok=True)  # of a run that was killed here, or whose disc was full
    engine = utils.create_sqlalchemy_engine(f"{_PREFIX}{draft}")
    try:
        utils._initialize_tables(engine)
    finally:
        engine.dispose()
    return draft
