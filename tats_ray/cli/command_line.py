"""What all commands share: arguments, help, threads, and faults as one line."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tats_ray.config.settings import Settings
from tats_ray.config.shipped import shipped_names
from tats_ray.controller.signals import StopRequest
from tats_ray.errors import ConfigError, TatsRayError

_WIDTH = 100


@dataclass(frozen=True)
class JobHelp:
    """What `--help` says of a configured job.

    Attributes:
        command: behind `tats-ray`.
        purpose: a sentence.
        example: command of a small run.
        settings: where the settings are declared.
        most_used: dotted names of some of them.
        names: kind of the shipped configurations that it reads, if any.
        remark: a sentence on what else is to know.
        config: what is read; `--config` is then no choice.
    """

    command: str
    purpose: str
    example: str
    settings: type[Settings]
    most_used: tuple[str, ...]
    names: str | None = None
    remark: str = ""
    config: str | None = None


def job_parser(text: JobHelp, *, needs_file: bool = False) -> argparse.ArgumentParser:
    """What the command line of every configured job has."""
    parser = command_parser(text.command, text.purpose, text.example, _settings_help(text))
    if text.config is None:
        kinds = "YAML file" + (f", or {text.names}:NAME" if text.names else "")
        parser.add_argument("--config", metavar="FILE", required=needs_file, help=kinds)
    else:
        parser.set_defaults(config=text.config)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved config and leave"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    return parser


def command_parser(
    command: str, purpose: str, example: str, more: str = ""
) -> argparse.ArgumentParser:
    """A parser whose help ends with an example.

    Args:
        command: behind `tats-ray`.
        more: further help, laid out already.
    """
    return argparse.ArgumentParser(
        prog=f"tats-ray {command}",
        description=purpose,
        epilog=f"example:\n  {example}\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _settings_help(text: JobHelp) -> str:
    parts = ["\nmost used settings (--dry-run shows all):"]
    for dotted in text.most_used:
        meaning = _meaning(text.settings, dotted)
        parts.append(_row(dotted, meaning))
    if text.names:
        names = ", ".join(shipped_names(text.names))
        parts.append("\nconfigurations that come with the package:\n" + _filled(names, "  "))
    if text.remark:
        parts.append("\n" + _filled(text.remark, ""))
    return "\n".join(parts)


def _meaning(settings: type[Settings], dotted: str) -> str:
    """The setting's description with its default."""
    kind: Any = settings
    *sections, key = dotted.split(".")
    for section in sections:
        kind = kind.model_fields[section].annotation
    field = kind.model_fields[key]
    meaning = " ".join((field.description or "").split()).rstrip(".")
    if field.is_required():
        return f"{meaning} (required)"
    default = field.get_default()
    return meaning if default is None else f"{meaning} ({str(default).lower()})"


def _row(name: str, meaning: str) -> str:
    return textwrap.fill(
        meaning, _WIDTH, initial_indent=f"  {name:<26}", subsequent_indent=" " * 28
    )


def _filled(text: str, indent: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def require_settings(given: argparse.Namespace, example: str) -> None:
    """A job that is given nothing says how to begin.

    Args:
        example: command of a small run.

    Raises:
        ConfigError: there are neither a file nor settings.
    """
    if given.config is None and not given.overrides:
        raise ConfigError(f"there is nothing to run: begin with {example}; --help lists all flags")


def use_threads(threads: int) -> None:
    """Before torch is imported: one thread per process unless the job asks for more, since
    parallelism comes from processes."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def run_guarded(job: Callable[[], int], stop: StopRequest | None = None) -> int:
    """Runs a job; a fault of the user's becomes one line and an exit code.

    Args:
        stop: of a job whose same command goes on: being asked to stop is then no fault.
    """
    try:
        return job()
    except TatsRayError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        if stop is None or not stop.asked_once:
            return 130
        sys.stdout.write("stopped as requested; the same command continues from here\n")
        return 0
