"""`tats-ray`: one table of commands, help that shows how to begin, nothing heavy before it."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tats_ray.cli import commands
from tats_ray.cli.benchmark import benchmark_main
from tats_ray.cli.commands import COMMANDS, main

HEAVY = {"torch", "ray", "numpy", "mlflow", "pyarrow", "av", "decord"}
CONFIGURED = ["demo", "pretrain", "finetune", "compare"]
every_command = pytest.mark.parametrize("name", COMMANDS)


def _help(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_the_overview_lists_every_command_with_its_line(words, capsys):
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert f"  {name:<12}{command.purpose}" in lines


def test_every_entry_point_of_the_folder_is_in_the_table():
    places = {command.place for command in COMMANDS.values()}
    for path in Path(commands.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            entry = isinstance(node, ast.FunctionDef) and node.name.endswith("main")
            if entry and path.stem != "commands":
                assert f"{path.stem}:{node.name}" in places


@every_command
def test_every_place_is_a_function(name):
    module, _, function = COMMANDS[name].place.partition(":")
    assert callable(getattr(import_module(f"tats_ray.cli.{module}"), function))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "benchmark"])
def test_the_help_of_a_command_begins_with_its_name_and_ends_with_an_example(name, capsys):
    text = _help(name, capsys)
    assert text.startswith(f"usage: tats-ray {name} ")
    assert f"example:\n  tats-ray {name}" in text


@pytest.mark.parametrize("name", [*CONFIGURED, "probe"])
def test_the_help_of_a_job_explains_settings(name, capsys):
    rows = _help(name, capsys).partition("most used settings")[2].splitlines()
    assert len([row for row in rows if row.startswith("  ") and "." in row.split()[0]]) >= 5


def test_the_help_tells_defaults_and_what_is_required(capsys):
    text = _help("pretrain", capsys)
    assert "  run.output_dir            Folder of all runs (runs)\n" in text
    assert "and its name in MLflow (required)\n" in text
    assert "recipe:videomae_ucf101" in text


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_example_of_a_job_is_a_command_that_can_begin(name, capsys):
    example = _help(name, capsys).partition("example:\n")[2].splitlines()[0]
    assert main([*shlex.split(example)[1:], "--dry-run"]) == 0


def test_the_benchmarks_are_listed(capsys):
    assert benchmark_main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  plan      Tell what a run needs; nothing is timed." in lines
    assert "  tats-ray benchmark step --config recipe:demo" in lines


def test_help_needs_nothing_heavy():
    """Of all commands at once: what one of them imports stays imported."""
    script = (
        "import json, sys; from tats_ray.cli.commands import COMMANDS, main\n"
        "for words in [['--help'], *([name, '--help'] for name in COMMANDS)]:\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit:\n"
        "        pass\n"
        f"    print(json.dumps([words, sorted({HEAVY!r} & set(sys.modules))]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(told) == len(COMMANDS) + 1
    assert [words for words, loaded in told if loaded] == []


@pytest.mark.parametrize(
    ("word", "remedy"), [("pretrian", "did you mean pretrain?"), ("x", "choose from: demo, ")]
)
def test_an_unknown_command_is_refused(word, remedy, capsys):
    assert main([word]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: '{word}' is not a command of tats-ray; {remedy}")
    assert message.count("\n") == 1


def test_the_demo_reads_its_own_file_only(capsys):
    assert main(["demo", "--dry-run", "run.name=mine"]) == 0
    assert "name: mine" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["demo", "--config", "recipe:tats_vit_b"])
