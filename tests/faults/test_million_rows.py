"""A manifest and lists of a million videos fit into memory, and planning a block of them touches
that block only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tats_ray.data.manifest import SCHEMA

pytestmark = pytest.mark.faults
ROWS = 10**6
GIB = 2**20  # in KiB, as the system counts
ROOT = Path(__file__).resolve().parents[2]

READ_AND_PLAN = """
from tats_ray.config import load_config
from tats_ray.data.labelled_clips import class_index, classes_of
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import build_plan
plan = build_plan(load_config(None, ["run.name=x"]), read_manifest(file))
classes = classes_of(file, plan.manifest)
class_index(file, plan.manifest, classes)
seen = set()
for block in range(100):
    seen |= set(plan.videos(plan.stream_indices(block))["path"].to_pylist())
print(plan.manifest.num_rows, len(classes), len(seen))
"""
READ_LIST = """
from tats_ray.data.datasets.lists import list_entries
entries = list_entries(Path(file))
print(len(entries), len({entry.path for entry in entries}), entries[-1].origin.rpartition(":")[2])
"""
READ_KINETICS = """
from tats_ray.data.datasets.kinetics import kinetics_entries
entries = kinetics_entries(Path(file), Path(file).parent, "train")
print(len(entries), len({entry.path for entry in entries}), entries[-1].origin.rpartition(":")[2])
"""
# Not `ru_maxrss`: that counts what the process that starts this one holds, too.
PEAK = """
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def _manifest(folder):
    columns = {
        "path": [f"/storage/videos/class {n % 400:03d}/video_{n:07d}.mp4" for n in range(ROWS)],
        "label": [f"class {n % 400:03d}" for n in range(ROWS)],
        "frames": np.full(ROWS, 250), "fps": np.full(ROWS, 25.0), "width": np.full(ROWS, 340),
        "height": np.full(ROWS, 256), "ground_truth": pa.nulls(ROWS, pa.string()),
        "reading": ["decord"] * ROWS, "bytes": np.full(ROWS, 10**6),
        "mtime_ns": np.full(ROWS, 10**18),
    }  # fmt: skip
    pq.write_table(pa.table(columns, schema=SCHEMA), folder / "m.parquet")
    return folder / "m.parquet"


def _list(folder):
    lines = (f"/storage/class {n % 400:03d}/video_{n:07d}.mp4 {n % 400}\n" for n in range(ROWS))
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def _kinetics(folder):
    lines = (f"class {n % 400:03d},id-{n:08d},{n % 90},{n % 90 + 10},train\n" for n in range(ROWS))
    header = "label,youtube_id,time_start,time_end,split\n"
    (folder / "train.csv").write_text(header + "".join(lines))
    return folder / "train.csv"


@pytest.mark.parametrize(
    ("make", "script", "wanted"),
    [
        (_manifest, READ_AND_PLAN, f"{ROWS} 400 800"),
        (_list, READ_LIST, f"{ROWS} {ROWS} {ROWS}"),
        (_kinetics, READ_KINETICS, f"{ROWS} {ROWS} {ROWS + 1}"),
    ],
)
def test_a_million_rows_stay_below_a_gigabyte(tmp_path, make, script, wanted):
    file = make(tmp_path)
    head = f"from pathlib import Path\nfile = {str(file)!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", head + script + PEAK], capture_output=True, text=True, check=True,
        cwd=ROOT,
    )  # fmt: skip
    counted, peak = done.stdout.splitlines()
    assert counted == wanted
    assert int(peak) < GIB


def test_finding_the_videos_of_a_csv_asks_per_folder(tmp_path):
    """Not per video: counted, since seconds depend on storage and on how busy the machine is."""
    script = """
import sys
from pathlib import Path
from tats_ray.data.datasets.kinetics import kinetics_entries
asked = 0
def count(frame, event, argument):
    global asked
    asked += event == "c_call" and argument.__module__ == "posix" and argument.__name__ != "fspath"
sys.setprofile(count)
found = kinetics_entries(Path(file), Path(file).parent)
sys.setprofile(None)
print(asked, sum(entry.path.parent.name == "class 7" for entry in found))
"""
    file = tmp_path / "train.csv"
    lines = [f"class {n % 9},id-{n:04d},1,2,train\n" for n in range(3000)]
    file.write_text("label,youtube_id,time_start,time_end,split\n" + "".join(lines))
    (tmp_path / "class 7").mkdir()
    for n in range(7, 900, 9):
        (tmp_path / "class 7" / f"id-{n:04d}_000001_000002.mp4").touch()
    done = subprocess.run(
        [sys.executable, "-c", f"file = {str(file)!r}\n{script}"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    asked, found = map(int, done.stdout.split())
    assert found == 100
    assert asked < 100


def test_planning_a_block_calls_nothing_per_row(tmp_path):
    """Counts the interpreter's calls, which do not depend on how busy the machine is."""
    script = """
import sys
from tats_ray.config import load_config
from tats_ray.data.manifest import read_manifest
from tats_ray.data.stage import build_plan
calls = 0
def count(frame, event, argument):
    global calls
    calls += 1
def plan(path):
    plan = build_plan(config, read_manifest(path))
    for block in range(10):
        plan.videos(plan.stream_indices(block))
config = load_config(None, ["run.name=x"])
plan(few)  # imports what it needs
sys.setprofile(count)
plan(file)
sys.setprofile(None)
print(calls)
"""
    file, few = _manifest(tmp_path), tmp_path / "few.parquet"
    pq.write_table(pq.read_table(file).slice(0, 10), few)
    done = subprocess.run(
        [sys.executable, "-c", f"file, few = {str(file)!r}, {str(few)!r}\n{script}"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert int(done.stdout) < 10_000
