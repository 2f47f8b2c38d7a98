"""Figures of this machine from one measurement to the next."""

from __future__ import annotations

import json

import pytest

from tats_ray.benchmarks.results import Figure, machine, record, regressions
from tats_ray.errors import StorageError


def _figures(seconds, memory):
    return {"step": Figure(seconds, "s", "time", 0.02), "memory": Figure(memory, "MiB", "memory"),
            "operations": Figure(seconds, "GFLOP")}  # fmt: skip


def test_a_figure_may_scatter_but_not_become_worse():
    before = _figures(1.0, 100.0)
    assert regressions(before, _figures(1.17, 104.9)) == []
    assert regressions(before, _figures(0.5, 50.0)) == []
    assert regressions(before, _figures(1.2, 100.0)) == ["step: 1.2 s, 20% more than before (1)"]
    assert regressions(before, _figures(1.0, 106.0)) == [
        "memory: 106 MiB, 6% more than before (100)"
    ]
    assert regressions({}, before) == []


def test_the_file_of_a_machine_keeps_the_newest_of_each_benchmark(tmp_path):
    assert record(tmp_path, "step", _figures(1.0, 100.0)) == []
    assert record(tmp_path, "decode", {"clip": Figure(40.0, "ms", "time")}) == []
    assert len(record(tmp_path, "step", _figures(2.0, 100.0))) == 1
    assert record(tmp_path, "step", _figures(2.0, 100.0)) == []
    (file,) = tmp_path.iterdir()
    assert file.name == f"{machine()}.json"
    stored = json.loads(file.read_text())
    assert stored["step"]["step"]["value"] == 2.0
    assert stored["decode"]["clip"] == {"value": 40.0, "unit": "ms", "kind": "time", "spread": 0.0}


@pytest.mark.parametrize("content", ["{", "[1]", '{"step": {"a": {"value": 1}}}'])
def test_a_damaged_file_is_named(content, tmp_path):
    (tmp_path / f"{machine()}.json").write_text(content)
    with pytest.raises(StorageError, match="is not a file of benchmark results; remove it"):
        record(tmp_path, "step", {})
