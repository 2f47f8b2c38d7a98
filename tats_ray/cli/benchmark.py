"""Command line of jobs/benchmark.py: `--config FILE --steps N --systems ... section.key=value`."""

from __future__ import annotations

import argparse
import sys

from tats_ray.cli.command_line import require_settings, run_guarded, use_threads
from tats_ray.config import load_config


def benchmark_main(arguments: list[str] | None = None) -> int:
    """Entry point of jobs/benchmark.py; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Time training steps in this process, without Ray."
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file")
    parser.add_argument("--steps", type=int, default=10, help="timed steps per system")
    parser.add_argument("--systems", nargs="+", default=["random", "tats"])
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    given = parser.parse_intermixed_args(arguments)
    return run_guarded(lambda: _benchmark(given))


def _benchmark(given: argparse.Namespace) -> int:
    require_settings(given, "python jobs/benchmark.py --config configs/demo.yaml")
    configs = {
        system: load_config(given.config, [*given.overrides, f"masking.system={system}"])
        for system in given.systems
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
