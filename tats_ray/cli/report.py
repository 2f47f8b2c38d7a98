"""`tats-ray report RUN`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tats_ray.cli.command_line import command_parser, run_guarded
from tats_ray.config.load import read_yaml
from tats_ray.errors import RunDirectoryError


def report_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray report`; returns the exit code."""
    parser = command_parser(
        "report",
        "Write report.html into a run's directory: settings, curves, masks, costs, faults and "
        "evaluations on one page that needs no server.",
        "tats-ray report runs/demo",
    )
    parser.add_argument("run", type=Path, help="directory of a run, finished or not")
    given = parser.parse_args(arguments)
    return run_guarded(lambda: _report(given.run))


def _report(run: Path) -> int:
    if not (run / "config.yaml").is_file():
        raise RunDirectoryError(f"{run}: is not a run directory (it contains no config.yaml)")
    config = read_yaml(run / "config.yaml")
    if "compare" in config:
        raise RunDirectoryError(f"{run}: is a comparison; its report is {run / 'results.html'}")
    from tats_ray.controller.run_directory import read_json
    from tats_ray.tracking.run_report import RunFiles, write_run_report

    files = RunFiles(
        path=run.absolute(),
        config=config,
        records=_records(run / "metrics.jsonl", "step"),
        summary=read_json(run / "summary.json"),
        quarantine=read_json(run / "quarantine.json"),
        nonfinite=_records(run / "nonfinite.jsonl", "what"),
        probes={
            file.parent.name: read_json(file) for file in sorted(run.glob("probes/*/probe.json"))
        },
        evaluations={file.stem: read_json(file) for file in sorted(run.glob("evaluation/*.json"))},
    )
    sys.stdout.write(f"{write_run_report(files)}\n")
    return 0


def _records(file: Path, key: str) -> list[dict[str, Any]]:
    """Raises: RunDirectoryError: a line is no record, which has this key."""
    from tats_ray.tracking.metrics_file import read_records

    records = read_records(file)
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict) or key not in record:
            raise RunDirectoryError(f"{file}: line {number} is not a record; delete the line")
    return records
