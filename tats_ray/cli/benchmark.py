"""Command line of jobs/benchmark.py: `step` or `decode`, and what each takes."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tats_ray.cli.command_line import run_guarded, use_threads
from tats_ray.config import load_config
from tats_ray.errors import ConfigError


def benchmark_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/benchmark.py; returns the exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    benchmarks = {"step": _step_main, "decode": _decode_main}

    def refuse(rest: list[str]) -> int:
        raise ConfigError(
            f"there is nothing to run: begin with python jobs/benchmark.py {'|'.join(benchmarks)}; "
            "step --config configs/demo.yaml is a small one"
        )

    return run_guarded(lambda: benchmarks.get(name, refuse)(rest))


def _step_main(arguments: list[str]) -> int:
    parser = _parser("step", "Time training steps in this process, without Ray.")
    parser.add_argument("--steps", type=int, default=10, help="timed steps per system")
    parser.add_argument("--systems", default="random,tats", metavar="A,B,...")
    given = parser.parse_intermixed_args(arguments)
    configs = {
        system: load_config(given.config, [*given.words, f"masking.system={system}"])
        for system in given.systems.split(",")
    }
    use_threads(max(config.cluster.threads for config in configs.values()))
    from tats_ray.controller.benchmark import measure_step
    from tats_ray.models.numerics import default_device

    sys.stdout.write(f"device {default_device()}\n")
    for system, config in configs.items():
        cost = measure_step(config, given.steps)
        memory = "-" if cost.peak_memory_mib is None else f"{cost.peak_memory_mib:.0f} MiB"
        sys.stdout.write(
            f"{system:<9} {cost.clips_per_second:8.1f} clips/s  step {cost.step_seconds:.4f} s  "
            f"masker {cost.masker_share:4.0%}  "
            f"motion {1000 * cost.prior_seconds:.1f} ms/clip  memory {memory}  "
            f"loss {cost.first_loss:.3f} -> {cost.last_loss:.3f}\n"
        )
    return 0


def _decode_main(arguments: list[str]) -> int:
    parser = _parser("decode", "Time the decoding of clips of given videos, one at a time.")
    parser.add_argument("--clips", type=int, default=20, help="timed clips per video")
    given = parser.parse_intermixed_args(arguments)
    settings = [word for word in given.words if re.match(r"[\w.]+=", word)]
    data = load_config(given.config, ["run.name=benchmark", *settings]).data
    from tats_ray.controller.decode_benchmark import measure_decoding

    for path in (word for word in given.words if word not in settings):
        cost = measure_decoding(Path(path), data, given.clips)
        other = "fails" if cost.decord is None else f"{cost.decord:.0f} ms"
        sys.stdout.write(f"{path}: {cost.reading} {cost.exact:.0f} ms/clip, decord {other}\n")
    return 0


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"benchmark.py {name}", description=description)
    parser.add_argument("--config", metavar="FILE", help="YAML file")
    kinds = "section.key=value" if name == "step" else "FILE|section.key=value"
    parser.add_argument("words", nargs="+" if name == "decode" else "*", metavar=kinds)
    return parser
