"""The report of a run stands alone, shows what the run has left, and runs nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from tats_ray.cli.report import report_main
from tats_ray.config import dump_config
from tats_ray.config.compare import CompareSettings
from tats_ray.errors import StorageError, one_line
from tats_ray.evaluation.comparison import Comparison, TrialResult
from tats_ray.tracking import html_page
from tats_ray.tracking.comparison_report import write_comparison
from tats_ray.tracking.html_page import paragraph, table, text, write_page
from tats_ray.tracking.run_report import RunFiles, write_run_report
from tests.conftest import tiny_config
from tests.unit.tracking.test_any_text import TEXT

ACTIVE = {"script", "iframe", "object", "embed", "link", "base", "form", "a", "button", "input"}
ADDRESSES = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.cells, self._within = [], [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag in ("td", "p", "h1"):
            self.cells.append("")
        self._within.append(tag)

    def handle_data(self, data):
        if self._within and self._within[-1] in ("td", "p", "h1"):
            self.cells[-1] += data

    def handle_endtag(self, tag):
        while self._within and self._within.pop() != tag:
            pass


def _check_alone(content):
    page = Page(content)
    assert not ACTIVE & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ADDRESSES:
            assert value.startswith(("#", "data:image/png;base64,", "data:image/gif;base64,"))
    assert re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)", content) is None
    assert "default-src 'none'; img-src data:" in content
    return page


def _records():
    steps = range(10, 50, 10)
    return [
        {"step": step, "loss": 1 / step, "time/step_seconds": 0.5, "time/data_seconds": 0.1,
         "rollout/seconds": 0.2, "rollout/failures": 0.1, "enrichment/moving": step / 20,
         "skipped_steps": float(step >= 30), "ppo/kl": 0.0}
        for step in steps
    ]  # fmt: skip


def _run(path, **changes):
    (path / "pictures").mkdir(exist_ok=True)
    for name in ("step_00000020_clip_0.png", "step_00000040_clip_0.png",
                 "step_00000040_clip_1.png", "masks_over_steps.gif"):  # fmt: skip
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path / "pictures" / name)
    given = {
        "path": path, "config": tiny_config().model_dump(), "records": _records(),
        "summary": {"steps": 40, "loss_last": 0.025, "resumed_from": 20},
        "quarantine": {"a.mp4": "broken"}, "nonfinite": [{"what": "step 3"}],
        "probes": {"p": {"step": 40, "results": {"linear": {"top1": 0.5, "top1_deviation": 0.02}}}},
        "evaluations": {},
    }  # fmt: skip
    return RunFiles(**(given | changes))


def test_it_shows_curves_masks_costs_faults_and_evaluation(tmp_path):
    content = write_run_report(_run(tmp_path)).read_text(encoding="utf-8")
    page = _check_alone(content)
    assert content.count("<svg ") == 3  # loss, enrichment, costs; a KL of 0 tells nothing
    images = [value[:15] for _, name, value in page.attributes if name == "src"]
    assert images == ["data:image/gif;", "data:image/png;", "data:image/png;"]  # the newest step
    rows = [page.cells[i : i + 3] for i in range(len(page.cells))]
    assert ["wait for decoded clips", "0.100 s", "20%"] in rows
    assert ["autoencoder's update and the rest", "0.200 s", "40%"] in rows
    faults = {row[0]: row[1] for row in rows if len(row) == 3}
    assert faults["broken videos left out"] == "1" and faults["continued after step"] == "20"
    assert faults["steps that were not finite"] == faults["optimiser steps left out"] == "1"
    assert faults["rollout workers that failed"] == "4"
    assert ["probe p", "linear", "40"] in rows
    assert ["50.0 % ± 2.0", "-"] in [row[:2] for row in rows]
    assert faults["ratio"] == "0.75"  # of the settings


def test_a_run_that_has_just_begun_has_a_report(tmp_path):
    bare = RunFiles(tmp_path, tiny_config().model_dump(), [], {}, {}, [], {}, {})
    page = _check_alone(write_run_report(bare).read_text(encoding="utf-8"))
    assert "pre-training · tats · 0.75 of the tokens hidden · not complete: step 0 of 12" in (
        page.cells
    )
    assert page.cells.count("There are no records yet.") == 2


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=TEXT)
def test_texts_of_users_are_shown_and_do_nothing(words, tmp_path):
    hostile = f'{words}<script src="//x.y"></script><img src=x onerror="a"> & \' '
    run = _run(
        tmp_path, quarantine={hostile: hostile}, nonfinite=[],
        probes={hostile: {"step": hostile, "results": {hostile: {"top1": 1.0}}}},
        evaluations={hostile: {"top1": 0.5}},
        config={"masking": {"system": hostile}, hostile: {hostile: hostile}},
    )  # fmt: skip
    content = write_run_report(run).read_text(encoding="utf-8")
    page = Page(content)
    assert not ACTIVE & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.cells.count(one_line(hostile)) >= 5
    assert text(words) in content


def test_a_comparison_has_a_page_of_its_own(tmp_path):
    section = CompareSettings.model_construct(
        arms={"<b>random": [], "tats": []}, ratios=[0.75], seeds=[0], references=["tats"]
    )
    results = [TrialResult(arm, 0.75, 0, 12, 1.0, 0.1, {"linear": 0.5}, []) for arm in section.arms]
    files = write_comparison(tmp_path, section, Comparison(results))
    assert tmp_path / "results.html" in files
    content = (tmp_path / "results.html").read_text(encoding="utf-8")
    page = _check_alone(content)
    assert content.count("<svg ") == 2 and "b" not in page.tags
    assert "<b>random" in page.cells and "50.0" in page.cells


def test_a_page_is_replaced_as_a_whole(tmp_path, monkeypatch):
    file = tmp_path / "page.html"
    write_page(file, "one", [paragraph("first")])
    before = file.read_bytes()
    monkeypatch.setattr(html_page, "_STYLE", "\udcff")  # cannot be written as UTF-8
    with pytest.raises(UnicodeEncodeError):
        write_page(file, "two", [table(["a"], [["b"]])])
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", "three", [])


def test_the_command_reads_a_directory_and_names_what_is_broken(tmp_path, capsys):
    assert report_main([str(tmp_path)]) == 2
    assert "contains no config.yaml" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text(dump_config(tiny_config()))
    lines = [json.dumps(record) for record in _records()]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 50, "lo']))
    assert report_main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "not complete: step 40 of 12" in content
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n[]\n')
    assert report_main([str(tmp_path)]) == 2
    assert "metrics.jsonl: line 2 is not a record" in capsys.readouterr().err
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "summary.json").write_text("[")
    assert report_main([str(tmp_path)]) == 2
    assert "summary.json: cannot be read" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("compare: {}\n")
    assert report_main([str(tmp_path)]) == 2
    assert "results.html" in capsys.readouterr().err
