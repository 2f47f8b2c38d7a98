"""`tats-ray export RUN FOLDER --format huggingface|timm|safetensors`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tats_ray.cli.command_line import command_parser, run_guarded, use_threads
from tats_ray.errors import one_line


def export_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray export`; returns the exit code."""
    parser = command_parser(
        "export",
        "Write the weights of a run, and its sampler, as other libraries read them.",
        "tats-ray export runs/NAME exported/NAME --format huggingface",
    )
    parser.add_argument("run", type=Path, help="pre-training or fine-tuning run, or a checkpoint")
    parser.add_argument("folder", type=Path, help="folder to write; it must not exist yet")
    parser.add_argument(
        "--format",
        choices=["huggingface", "timm", "safetensors"],
        default="huggingface",
        help="transformers' VideoMAE, timm's names, or our own names (%(default)s)",
    )
    parser.add_argument(
        "--encoder", action="store_true", help="leave the decoder of a pre-training run out"
    )
    given = parser.parse_args(arguments)
    return run_guarded(lambda: _export(given))


def _export(given: argparse.Namespace) -> int:
    use_threads(1)
    from tats_ray.controller.export import export

    export(given.run, given.folder, given.format, encoder_only=given.encoder)
    sys.stdout.write(
        one_line(f"{given.folder}: weights as {given.format}; see its README.md") + "\n"
    )
    return 0
