"""The command `tats-ray`: a table of its sub-commands, each imported when it is asked for."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import NamedTuple

from tats_ray.errors import ConfigError


class Command(NamedTuple):
    purpose: str  # one line
    place: str  # `module:function` in tats_ray.cli: takes the words behind the name, gives the code


# A command that is added stands here and nowhere else.
COMMANDS = {
    "demo": Command("watch a sampler learn on generated videos", "train:demo_main"),
    "doctor": Command("check this machine: decoding, Ray, GPU, MLflow, disk", "doctor:doctor_main"),
    "prepare": Command("make a manifest of videos; re-encode them", "prepare:prepare_data_main"),
    "pretrain": Command("pre-train a masked video autoencoder", "train:pretrain_main"),
    "finetune": Command("fine-tune an encoder on labelled videos", "train:finetune_main"),
    "evaluate": Command("test a fine-tuned run with several views", "evaluation:evaluate_main"),
    "enrichment": Command("measure how often masks show what moves", "evaluation:enrichment_main"),
    "probe": Command("evaluate frozen features of a run", "evaluation:probe_main"),
    "compare": Command("compare masking systems at an equal budget", "evaluation:compare_main"),
    "visualize": Command("show how runs see videos, as MP4, GIF, PNG", "visualize:visualize_main"),
    "report": Command("write one page about a run", "report:report_main"),
    "export": Command("write weights as other libraries read them", "export:export_main"),
    "scale": Command("change a running run's rollout workers", "scale:scale_main"),
    "benchmark": Command("measure steps, decoding, rollouts, Ray", "benchmark:benchmark_main"),
}

_HEAD = """usage: tats-ray COMMAND [options] [section.key=value ...]

Masked video autoencoders with learned token sampling, on Ray.

"""
_FOOT = """
begin with:
  tats-ray demo

`tats-ray COMMAND --help` has an example and the most used settings of each.
"""


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray`; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(overview())
        return 0
    name, *rest = words
    if name not in COMMANDS:
        sys.stderr.write(f"error: {_unknown(name)}\n")
        return ConfigError.exit_code
    module, _, function = COMMANDS[name].place.partition(":")
    code: int = getattr(import_module(f"tats_ray.cli.{module}"), function)(rest)
    return code


def overview() -> str:
    """All commands, each with a line."""
    rows = (f"  {name:<12}{command.purpose}\n" for name, command in COMMANDS.items())
    return f"{_HEAD}commands:\n{''.join(rows)}{_FOOT}"


def _unknown(name: str) -> ConfigError:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    known = f"did you mean {close[0]}?" if close else f"choose from: {', '.join(COMMANDS)}"
    return ConfigError(f"'{name}' is not a command of tats-ray; {known}")
