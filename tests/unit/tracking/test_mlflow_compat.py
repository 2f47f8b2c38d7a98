"""MLflow's SQLite file is there whole or not at all, whatever ends the process that makes it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from tats_ray.tracking.mlflow_compat import make_sqlite_file

MAKE = "import sys; from tats_ray.tracking.mlflow_compat import make_sqlite_file as make;"
# The kernel kills the process when a file of its grows beyond so many bytes.
KILLED_AT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""


def _start(uri, before=""):
    script = f"{before}\n{MAKE} make(sys.argv[1])"
    return subprocess.Popen([sys.executable, "-c", script, uri])


def _can_be_used(uri):
    client = MlflowClient(tracking_uri=uri)
    run = client.create_run(client.create_experiment("tats_ray"))
    client.log_metric(run.info.run_id, "loss", 0.5, step=1)
    return client.get_metric_history(run.info.run_id, "loss")[0].value == 0.5


@pytest.mark.parametrize(
    "kilobytes", [*(pytest.param(size, marks=pytest.mark.slow) for size in (8, 100)), 300]
)
def test_a_process_killed_among_the_tables_leaves_none(tmp_path, kilobytes):
    path, draft = tmp_path / "mlflow.db", tmp_path / ".mlflow.db.new"
    process = _start(f"sqlite:///{path}", KILLED_AT.format(1024 * kilobytes))
    assert process.wait(timeout=120) == -signal.SIGXFSZ
    assert not path.exists()
    assert draft.exists()
    make_sqlite_file(f"sqlite:///{path}")
    assert _can_be_used(f"sqlite:///{path}")
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_two_that_start_together_make_one(tmp_path):
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    processes = [_start(uri) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert _can_be_used(uri)
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_file_that_exists_is_left_as_it_is(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"another's")
    make_sqlite_file(f"sqlite:///{path}")
    assert path.read_bytes() == b"another's"


def test_other_stores_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for uri in ("http://127.0.0.1:1", "postgresql://u@host/n", "sqlite://", "sqlite:///:memory:"):
        make_sqlite_file(uri)
    assert list(tmp_path.iterdir()) == []


def test_what_a_uri_says_of_the_connection_is_not_of_the_name(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=30"
    make_sqlite_file(uri)
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]
    assert _can_be_used(uri)
