"""Command line of jobs/benchmark.py: `step` or `decode`, and what each takes."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tats_ray.cli.command_line import run_guarded, use_threads
from tats_ray.config import load_config
from tats_ray.errors import ConfigError

if TYPE_CHECKING:
    from tats_ray.controller.benchmark_results import Figure


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
    parser.add_argument("--repeats", type=int, default=7, help="timed steps per system")
    parser.add_argument("--systems", default="random,tats", metavar="A,B,...")
    parser.add_argument(
        "--record",
        action="store_true",
        help="keep the figures below benchmarks/; fail where they are worse than the last ones",
    )
    given = parser.parse_intermixed_args(arguments)
    configs = {
        system: load_config(given.config, [*given.words, f"masking.system={system}"])
        for system in given.systems.split(",")
    }
    threads = max(config.cluster.threads for config in configs.values())
    use_threads(threads)
    import torch

    from tats_ray.controller.step_benchmark import REFERENCE, measure_steps
    from tats_ray.models.numerics import default_device

    torch.set_num_threads(threads)
    sys.stdout.write(f"device {default_device()}\n{_STEP_HEAD}\n")
    costs = measure_steps(configs, given.repeats)
    for system, cost in costs.items():
        memory = "-" if cost.peak_memory is None else f"{cost.peak_memory / 2**20:.0f}"
        sys.stdout.write(
            f"{system:<10}{cost.median:9.4f}{cost.median / costs[REFERENCE].median:8.3f}"
            f"{cost.spread:7.1%}{1 / cost.median:9.1f}{cost.flops / 1e9:9.1f}"
            f"{cost.activations / 2**20:9.1f}{memory:>8}{1000 * cost.motion_seconds:10.1f}  "
            f"{cost.losses[0]:.3f} -> {cost.losses[1]:.3f}\n"
        )
    if not given.record:
        return 0
    name = next(iter(configs.values())).run.name
    found = {f"{name}/{system}/{what}": figure for system, cost in costs.items()
             for what, figure in cost.figures().items()}  # fmt: skip
    return _record("step", found)


def _record(benchmark: str, figures: dict[str, Figure]) -> int:
    """Keeps the figures of this machine; the exit code tells whether one became worse."""
    from tats_ray.controller.benchmark_results import record

    worse = record(Path("benchmarks"), benchmark, figures)
    for line in worse:
        sys.stderr.write(f"error: {line}\n")
    return 1 if worse else 0


# Seconds of all cores, or of a GPU by the clock; MiB that the backward pass needs at once.
_STEP_HEAD = "system      s/clip   ratio spread  clips/s   GFLOP MiB/clip GPU MiB motion ms  loss"


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
