"""The private names of MLflow that we need, each with its reason. No other module uses one."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

_PREFIX = "sqlite:///"


def prepare_database(uri: str) -> None:
    """Makes faults of a database come at once and without traceback; makes the file of SQLite."""
    from mlflow.store.db import utils

    # MLflow tries to connect for minutes within one call, and no setting limits it, as
    # MLFLOW_HTTP_REQUEST_MAX_RETRIES does for servers. Our caller repeats calls, with pauses.
    utils.MAX_RETRY_COUNT = 0
    # It logs a traceback of each fault that it raises; our caller reports the fault in one line.
    logging.getLogger(utils.__name__).setLevel(logging.CRITICAL)
    make_sqlite_file(uri)


def make_sqlite_file(uri: str) -> None:
    """Makes the file of a `sqlite:///` URI, whole or not at all, unless it exists.

    MLflow commits table after table: a file whose maker was killed or had no space left would never
    open again ("table datasets already exists"). Hence a draft, and private functions: the public
    `mlflow db upgrade` takes seconds to start. Runs that start together wait for one another.
    """
    from mlflow.store.db import utils

    name = uri.removeprefix(_PREFIX).partition("?")[0]
    path = Path(name)
    if not uri.startswith(_PREFIX) or name in ("", ":memory:") or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists():
            draft = path.with_name(f".{path.name}.new")
            draft.unlink(missing_ok=True)
            engine = utils.create_sqlalchemy_engine(f"{_PREFIX}{draft}")
            try:
                utils._initialize_tables(engine)
            finally:
                engine.dispose()
            draft.rename(path)
    finally:
        os.close(folder)
