"""`tats-ray benchmark`: one benchmark, or `all` of them one after the other."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tats_ray.cli.command_line import command_parser, run_guarded, use_threads
from tats_ray.config import Config, load_config
from tats_ray.errors import ConfigError

if TYPE_CHECKING:
    from tats_ray.benchmarks.results import Figure

    Figures = dict[str, Figure]

_DEMO = "recipe:demo"
_FOLDER = Path("benchmarks")  # of the figures that are kept
_COMMAND = "import sys; from tats_ray.cli.benchmark import benchmark_main as m; sys.exit(m())"


class _Benchmark(NamedTuple):
    purpose: str
    measure: Callable[[argparse.Namespace], Figures]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    words: str = "section.key=value"
    example: str = f"--config {_DEMO}"


def benchmark_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray benchmark`; returns the exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]

    def job() -> int:
        if name in ("-h", "--help"):
            sys.stdout.write(_overview())
            return 0
        if name == "all":
            return _all(rest)
        if name not in _BENCHMARKS:
            raise ConfigError(
                "there is nothing to run: begin with tats-ray benchmark "
                f"{'|'.join(_BENCHMARKS)}|all; step --config {_DEMO} is a small one"
            )
        return _one(name, rest)

    return run_guarded(job)


def _overview() -> str:
    rows = (f"  {name:<10}{one.purpose}\n" for name, one in _BENCHMARKS.items())
    return (
        "usage: tats-ray benchmark BENCHMARK [options] [section.key=value ...]\n\nbenchmarks:\n"
        f"{''.join(rows)}  all       Run all of them.\n\n"
        f"example:\n  tats-ray benchmark step --config {_DEMO}\n"
    )


def _one(name: str, arguments: list[str]) -> int:
    """Measures, shows and, if asked, keeps figures; 1 where one became worse."""
    benchmark = _BENCHMARKS[name]
    parser = command_parser(
        f"benchmark {name}", benchmark.purpose, f"tats-ray benchmark {name} {benchmark.example}"
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file, or recipe:NAME")
    parser.add_argument("--repeats", type=int, default=7, help="timed repeats")
    parser.add_argument(
        "--record",
        action="store_true",
        help=f"keep the figures below {_FOLDER}/; fail where they are worse than the last ones",
    )
    benchmark.add_arguments(parser)
    parser.add_argument("words", nargs="*", metavar=benchmark.words)
    given = parser.parse_intermixed_args(arguments)
    use_threads(_config(given).cluster.threads)
    import torch

    torch.set_num_threads(_config(given).cluster.threads)
    figures = benchmark.measure(given)
    if not given.record:
        return 0
    from tats_ray.benchmarks.results import record

    # What was measured with other settings is another benchmark.
    key = " ".join([name, given.config or "", *sorted(given.words)])
    worse = record(_FOLDER, key, figures)
    for line in worse:
        sys.stderr.write(f"error: {line}\n")
    return 1 if worse else 0


def _all(arguments: list[str]) -> int:
    """Each in a process of its own, which begins with a cold cache and a Ray of its own."""
    parser = command_parser(
        "benchmark all", "Run all benchmarks.", "tats-ray benchmark all --quick"
    )
    parser.add_argument("--quick", action="store_true", help="small ones, within ten minutes")
    parser.add_argument("--config", metavar="FILE", default=_DEMO, help="YAML file, or recipe:NAME")
    parser.add_argument("--record", action="store_true", help="as of each of them")
    given = parser.parse_args(arguments)
    worst = 0
    for name in ("step", "sampler", "rollout", "pipeline", "weights", "startup", "scale"):
        words = [name, "--config", given.config, "--repeats", "3" if given.quick else "15"]
        words += ["--workers", "1,2,4"] if name == "scale" and given.quick else []
        words += ["--record"] if given.record else []
        sys.stdout.write(f"\n{name}\n")
        sys.stdout.flush()
        done = subprocess.run([sys.executable, "-c", _COMMAND, *words], check=False)
        worst = max(worst, done.returncode)
    return worst


def _config(given: argparse.Namespace, *more: str) -> Config:
    settings = [word for word in given.words if re.match(r"[\w.]+=", word)]
    return load_config(given.config, ["run.name=benchmark", *settings, *more])


def _show(figures: Figures) -> Figures:
    for name, figure in figures.items():
        spread = f" +- {figure.spread:.1%}" if figure.spread else ""
        sys.stdout.write(f"{name:<24}{figure.value:10.4g} {figure.unit}{spread}\n")
    return figures


def _profile_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="write a trace there")


def _step_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--systems", default="random,tats", metavar="A,B,...")
    _profile_argument(parser)


# Seconds of all cores, or of a GPU by the clock; MiB that the backward pass needs at once.
_STEP_HEAD = "system      s/clip   ratio spread  clips/s   GFLOP MiB/clip GPU MiB motion ms  loss"


def _step(given: argparse.Namespace) -> Figures:
    from tats_ray.benchmarks.steps import REFERENCE, measure_steps, profile_step
    from tats_ray.models.numerics import default_device

    systems = given.systems.split(",")
    configs = {system: _config(given, f"masking.system={system}") for system in systems}
    sys.stdout.write(f"device {default_device()}\n{_STEP_HEAD}\n")
    costs = measure_steps(configs, given.repeats)
    for system, cost in costs.items():
        memory = "-" if cost.peak_memory is None else f"{cost.peak_memory / 2**20:.0f}"
        seconds = cost.time.value
        sys.stdout.write(
            f"{system:<10}{seconds:9.4f}{seconds / costs[REFERENCE].time.value:8.3f}"
            f"{cost.time.spread:7.1%}{1 / seconds:9.1f}{cost.flops / 1e9:9.1f}"
            f"{cost.activations / 2**20:9.1f}{memory:>8}{1000 * cost.motion_seconds:10.1f}  "
            f"{cost.losses[0]:.3f} -> {cost.losses[1]:.3f}\n"
        )
    if given.profile is not None:
        for system, config in configs.items():
            profile_step(config, given.profile / f"step_{system}.json")
    return {f"{system}/{what}": figure for system, cost in costs.items()
            for what, figure in cost.figures().items()}  # fmt: skip


def _sampler(given: argparse.Namespace) -> Figures:
    from tats_ray.benchmarks.policy import measure_sampler

    return _show(measure_sampler(_config(given), given.repeats))


def _rollout(given: argparse.Namespace) -> Figures:
    from tats_ray.benchmarks.policy import measure_rollouts

    return _show(measure_rollouts(_config(given), given.repeats))


def _decode(given: argparse.Namespace) -> Figures:
    from tats_ray.benchmarks.decoding import measure_decoding
    from tats_ray.benchmarks.results import Figure

    data, figures = _config(given).data, {}
    for path in (word for word in given.words if not re.match(r"[\w.]+=", word)):
        cost = measure_decoding(Path(path), data, given.repeats)
        other = "fails" if cost.decord is None else f"{cost.decord:.0f} ms"
        sys.stdout.write(f"{path}: {cost.reading} {cost.exact:.0f} ms/clip, decord {other}\n")
        figures[path] = Figure(cost.exact, "ms/clip", "time")
    return figures


def _pipeline(given: argparse.Namespace) -> Figures:
    from tats_ray.benchmarks.cluster import measure_pipeline

    return _show(measure_pipeline(_config(given), given.repeats, given.profile))


def _weights(given: argparse.Namespace) -> Figures:
    from tats_ray.benchmarks.cluster import measure_weights

    return _show(measure_weights(_config(given), given.repeats))


def _startup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--more-steps", type=int, metavar="N", help="also time longer runs: what a step costs"
    )


def _startup(given: argparse.Namespace) -> Figures:
    from tats_ray.benchmarks.startup import measure_startup

    words = given.words if given.config is None else ["--config", given.config, *given.words]
    return _show(measure_startup(words, given.repeats, given.more_steps))


def _scale_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", default="1,2,4,8,16,32", metavar="N,M,...")
    _profile_argument(parser)


def _scale(given: argparse.Namespace) -> Figures:
    from tats_ray.benchmarks.cluster import measure_scaling

    workers = [int(count) for count in given.workers.split(",")]
    return _show(measure_scaling(_config(given), workers, given.repeats, given.profile))


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--videos", type=int, required=True, help="in the training set")
    parser.add_argument("--epochs", type=float, required=True, help="times that each is seen")
    parser.add_argument("--gpu", default="a100", help="v100, a5000, a100, h100 or h200")
    parser.add_argument("--gpus", type=int, default=8, help="that train")
    parser.add_argument("--utilization", type=float, default=0.17, help="share of the GPU's peak")
    parser.add_argument("--decode-ms", type=float, default=50.0, help="CPU time of a clip")


def _plan(given: argparse.Namespace) -> Figures:
    from tats_ray.benchmarks.plan import plan_run

    needs = plan_run(
        _config(given, "train.batch_size=4", "train.workers=1", "train.accumulate=1"),
        round(given.videos * given.epochs),
        gpu=given.gpu,
        gpus=given.gpus,
        utilization=given.utilization,
        decode_seconds=given.decode_ms / 1000,
    )
    sys.stdout.write(
        f"{needs.clips:,} clips, {needs.operations:.3g} operations\n"
        f"{needs.gpu_hours:,.0f} hours of one {given.gpu} at {given.utilization:.0%} of its peak\n"
        f"{needs.decode_cores} CPU cores decode for {given.gpus} of them\n"
        f"{needs.rollout_gpus:.2f} GPUs for rollouts and PPO beside each that trains\n"
    )
    return {}


_BENCHMARKS = {
    "step": _Benchmark("Time training steps in this process, without Ray.", _step, _step_arguments),
    "sampler": _Benchmark("Time the sampler: what it sees, a draw, an update.", _sampler),
    "rollout": _Benchmark("Time a draw and its score in this process.", _rollout),
    "decode": _Benchmark(
        "Time the decoding of clips of videos.",
        _decode,
        words="FILE|section.key=value",
        example="VIDEO.mp4",
    ),
    "pipeline": _Benchmark(
        "Time Ray Data beside a bare pool of decoders.", _pipeline, _profile_argument
    ),
    "weights": _Benchmark("Time weights from a step to a rollout worker.", _weights),
    "startup": _Benchmark(
        "Time runs of two steps, serial and on Ray.", _startup, _startup_arguments
    ),
    "scale": _Benchmark(
        "Time rollout workers at a fixed cost of each draw.", _scale, _scale_arguments
    ),
    "plan": _Benchmark(
        "Tell what a run needs; nothing is timed.",
        _plan,
        _plan_arguments,
        example="--config recipe:videomae_k400 --videos 240000 --epochs 800",
    ),
}
