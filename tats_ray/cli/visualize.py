"""`tats-ray visualize VIDEO [VIDEO ...] --run RUN [--run RUN ...]`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tats_ray.cli.command_line import command_parser, run_guarded
from tats_ray.errors import ConfigError

_SECONDS = 60.0  # to look at one video before anything heavy is loaded


def visualize_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray visualize`; returns the exit code."""
    parser = command_parser(
        "visualize",
        "Show how pre-training runs see videos: frames, the sampler's map, visible tokens, "
        "reconstruction and error, as MP4, GIF and PNG.",
        "tats-ray visualize video.mp4 --run runs/demo --run runs/tube",
    )
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="video file")
    parser.add_argument(
        "--run",
        action="append",
        required=True,
        type=Path,
        dest="runs",
        help="directory of a pre-training run; several are shown side by side",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("visualizations"),
        metavar="DIR",
        help="where the files go (%(default)s)",
    )
    given = parser.parse_args(arguments)
    return run_guarded(lambda: _visualize(given))


def _visualize(given: argparse.Namespace) -> int:
    _check(given.videos)
    from tats_ray.evaluation.trained_run import load_run
    from tats_ray.tracking.visualization import check_runs, visualize

    runs = [load_run(run) for run in given.runs]
    check_runs(runs)
    for video in given.videos:
        for file in visualize(video, runs, given.output):
            sys.stdout.write(f"{file}\n")
            sys.stdout.flush()
    return 0


def _check(videos: Sequence[Path]) -> None:
    """Raises:
    ConfigError: files of two videos would have the same name.
    VideoDecodeError: a video cannot be read.
    """
    from tats_ray.data.decoder_process import DecoderProcess

    stem, times = Counter(video.stem for video in videos).most_common(1)[0]
    if times > 1:
        raise ConfigError(
            f"{times} videos are named {stem}: visualize them in turn, each with its own --output"
        )
    with closing(DecoderProcess()) as decoder:
        for video in videos:
            decoder.probe(str(video.absolute()), _SECONDS)
