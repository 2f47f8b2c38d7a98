"""The arguments of jobs/prepare_data.py that say in which published layout a data set lies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tats_ray.errors import ManifestError

if TYPE_CHECKING:
    from tats_ray.data.datasets.annotation import Entry

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
    from tats_ray.data.datasets.hmdb51 import hmdb51_entries
    from tats_ray.data.datasets.kinetics import kinetics_entries
    from tats_ray.data.datasets.lists import videomae_entries
    from tats_ray.data.datasets.ssv2 import ssv2_entries
    from tats_ray.data.datasets.ucf101 import ucf101_entries

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
