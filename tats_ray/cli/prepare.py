"""`tats-ray prepare`: manifest, re-encoding and motion of a set of videos."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tats_ray.cli.command_line import command_parser, run_guarded
from tats_ray.errors import ManifestError, VideoDecodeError

if TYPE_CHECKING:
    from tats_ray.data.datasets.annotation import Entry


MOTION_SOURCES = ["vectors", "lucas_kanade", "dense_flow", "cotracker3"]


def prepare_data_main(arguments: list[str] | None = None) -> int:
    """Entry point of `tats-ray prepare`; returns the exit code."""
    parser = command_parser(
        "prepare",
        "Make a manifest of videos.",
        "tats-ray prepare VIDEOS train.parquet --reencode VIDEOS_256",
    )
    parser.add_argument("source", type=Path, help="folder (class = sub-folder), list or annotation")
    parser.add_argument("manifest", type=Path, help="Parquet file to write")
    add_dataset_arguments(parser)
    parser.add_argument(
        "--reencode", type=Path, metavar="DIR", help="first re-encode all videos as H.264 into DIR"
    )
    parser.add_argument(
        "--short-side",
        type=_even,
        default=256,
        metavar="PIXELS",
        help="shorter side of re-encoded videos (%(default)s)",
    )
    parser.add_argument(
        "--check-frames",
        action="store_true",
        help="decode every frame, and leave out videos whose clips have other frames",
    )
    parser.add_argument(
        "--motion", choices=MOTION_SOURCES, help="also compute the motion of all videos"
    )
    parser.add_argument(
        "--motion-folder", type=Path, metavar="DIR", help="where it goes, for data.motion.cache"
    )
    parser.add_argument(
        "--motion-grid",
        type=_grid,
        default=28,
        metavar="POINTS",
        help="points per side: data.motion.grid, or twice data.size / model.patch (%(default)s)",
    )
    parser.add_argument(
        "--video-seconds",
        type=_seconds,
        metavar="SECONDS",
        help="time limit of one video (60 to look at it, 600 to re-encode or check it or find its "
        "motion)",
    )
    given = parser.parse_args(arguments)
    if (given.motion is None) != (given.motion_folder is None):
        parser.error("--motion and --motion-folder go together")
    check_dataset_arguments(parser, given)
    return run_guarded(lambda: _prepare(given))


def _prepare(given: argparse.Namespace) -> int:
    from tats_ray.data.datasets.lists import folder_entries, list_entries, other_files
    from tats_ray.data.motion.trackers import require_opencv
    from tats_ray.data.prepare import CHECKED_FRAMES, prepare

    require_opencv(given.motion, f"--motion {given.motion}")
    source = given.source
    if given.dataset is not None:
        entries, source = dataset_entries(given), videos_folder(given)
    elif source.is_dir():
        entries = folder_entries(source)
        if others := other_files(source):
            counts = ", ".join(f"{count} {suffix}" for suffix, count in others.items())
            sys.stdout.write(f"{source}: left out by suffix: {counts}\n")
    else:
        entries = list_entries(source)
    failures: list[VideoDecodeError] = []
    limit = {} if given.video_seconds is None else {"seconds": given.video_seconds}
    if given.reencode is not None:
        from tats_ray.data.reencode import reencode_entries

        total = len(entries)
        made = reencode_entries(entries, source, given.reencode, given.short_side, **limit)
        entries, failures = made
        _name("broken", failures)
        sys.stdout.write(f"{given.reencode}: {len(entries)} of {total} videos re-encoded\n")
        if not entries:
            raise ManifestError(f"none of {total} videos can be re-encoded")
    prepared = prepare(entries, given.manifest, check=given.check_frames, **limit)
    _name("broken", prepared.failures)
    if given.check_frames:
        sys.stdout.write(
            f"{given.manifest}: {CHECKED_FRAMES} frames of clips of each video are those that "
            "decoding every frame in order gives\n"
        )
    labels = {row.label for row in prepared.rows if row.label is not None}
    sys.stdout.write(
        f"{given.manifest}: {len(prepared.rows)} videos, {len(labels)} labels, "
        f"{len(failures) + len(prepared.failures)} broken files left out\n"
    )
    if given.motion is not None:
        _cache_motion(given, [row.path for row in prepared.rows], limit)
    return 0


def _cache_motion(given: argparse.Namespace, paths: list[str], limit: dict[str, float]) -> None:
    from tats_ray.data.motion.cache import cache_motion

    folder = str(given.motion_folder.absolute())
    failures = cache_motion(paths, given.motion, given.motion_grid, folder, **limit)
    _name("no motion", failures)
    sys.stdout.write(
        f"{folder}: {given.motion} of {len(paths) - len(failures)} videos, "
        f"{len(failures)} have none\n"
    )
    if len(failures) == len(paths):
        raise ManifestError(f"no video has {given.motion}; the first: {failures[0]}")


def _name(fault: str, failures: Sequence[VideoDecodeError]) -> None:
    for failure in failures:
        sys.stderr.write(f"{fault}: {failure}\n")


def _even(text: str) -> int:
    number = int(text)
    if number < 16 or number % 2:
        raise argparse.ArgumentTypeError(f"{text} is not an even number of at least 16")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _grid(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{text} is less than 2")
    return number


# Which arguments each layout takes besides --videos.
ARGUMENTS = {
    "ssv2": ["labels"],
    "kinetics": ["split"],
    "ucf101": ["labels"],
    "hmdb51": ["split", "fold"],
    "videomae": [],
}


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --dataset and what belongs to it."""
    parser.add_argument(
        "--dataset", choices=list(ARGUMENTS), help="the source is the annotation of this data set"
    )
    parser.add_argument(
        "--videos", type=Path, metavar="DIR", help="its videos (default: the annotation's folder)"
    )
    parser.add_argument(
        "--split",
        choices=["train", "validation", "test"],
        help="hmdb51: train or test; kinetics: only the rows of this split",
    )
    parser.add_argument("--fold", type=int, choices=[1, 2, 3], help="hmdb51 (default: 1)")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="check classes against labels.json (ssv2) or classInd.txt (ucf101)",
    )


def check_dataset_arguments(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Leaves with a message if an argument does not belong to the data set or one is missing."""
    taken = [] if given.dataset is None else ["videos", *ARGUMENTS[given.dataset]]
    for name in ("videos", "split", "fold", "labels"):
        if getattr(given, name) is not None and name not in taken:
            parser.error(f"--{name} does not belong to {_title(given.dataset)}")
    if given.dataset == "hmdb51" and given.split not in ("train", "test"):
        parser.error("--dataset hmdb51 needs --split train or --split test")


def videos_folder(given: argparse.Namespace) -> Path:
    """Where the videos of the data set lie.

    Raises:
        ManifestError: there is no such folder.
    """
    source: Path = given.source
    folder: Path = given.videos or (source if source.is_dir() else source.parent)
    if not folder.is_dir():
        raise ManifestError(f"{folder}: is not a folder; --videos must name the one of the videos")
    return folder


def dataset_entries(given: argparse.Namespace) -> list[Entry]:
    """Reads the annotation in the given layout.

    Raises:
        ManifestError: names the file and the line.
    """
    from tats_ray.data.datasets.kinetics import kinetics_entries
    from tats_ray.data.datasets.lists import videomae_entries
    from tats_ray.data.datasets.ssv2 import ssv2_entries
    from tats_ray.data.datasets.ucf101_hmdb51 import hmdb51_entries, ucf101_entries

    source, videos = given.source, videos_folder(given)
    match given.dataset:
        case "ssv2":
            return ssv2_entries(source, videos, given.labels)
        case "kinetics":
            return kinetics_entries(source, videos, given.split)
        case "ucf101":
            return ucf101_entries(source, videos, given.labels)
        case "hmdb51":
            return hmdb51_entries(source, videos, given.split, given.fold or 1)
        case _:
            return videomae_entries(source, videos)


def _title(dataset: str | None) -> str:
    return "a folder or a list file" if dataset is None else f"--dataset {dataset}"
