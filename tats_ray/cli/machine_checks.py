"""What `tats-ray doctor` tries on a machine: each check is a function of a run's settings."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from tats_ray.config import Config
from tats_ray.storage import writing

_READ_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4")
_CLIP_FRAMES, _CLIP_SIDE, _DECODE_SECONDS = 16, 64, 60.0
_NEAR = 3.0  # grey levels between a frame and its H.264 picture; neighbouring frames have 10
_LOW_BYTES, _FEW_BYTES = 2**30, 10 * 2**30
_SHARED = Path("/dev/shm")


class Finding(NamedTuple):
    grade: Literal["ok", "warning", "fails"]
    text: str  # what was found, and the remedy where one is needed


def judge_platform(version: tuple[int, int], system: str, machine: str) -> Iterator[Finding]:
    """Python and the machine, by their names."""
    found = f"Python {version[0]}.{version[1]} on {system} {machine}"
    if version < (3, 11):
        yield Finding("fails", f"{found}; install Python 3.11 or newer")
    elif system != "Linux":
        yield Finding("fails", f"{found}; use Linux: locks and process groups are its own")
    elif machine != "x86_64":
        yield Finding("warning", f"{found}; no decord here: PyAV decodes everything, more slowly")
    else:
        yield Finding("ok", found)


def _platform(config: Config) -> Iterator[Finding]:
    yield from judge_platform(sys.version_info[:2], platform.system(), platform.machine())


def _torch(config: Config) -> Iterator[Finding]:
    """A product on the device that a run would use."""
    import torch

    from tats_ray.models.numerics import default_device

    device = default_device()
    total = (torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)).sum().item()
    if total != 512:
        yield Finding("fails", f"8 x 8 ones times themselves sum to {total}, not 512; reinstall it")
    hardware = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    found = f"{torch.__version__} on {device}, bf16 in hardware: {'yes' if hardware else 'no'}"
    if config.train.precision == "bf16" and not hardware:
        yield Finding("warning", f"{found}; train.precision=auto uses fp32 here, which is faster")
    else:
        yield Finding("ok", found)


def _gpu(config: Config) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            own = torch.cuda.get_device_properties(index)
            yield Finding("ok", f"{own.name}, {own.total_memory / 2**30:.0f} GiB")
    elif Path("/dev/nvidia0").exists():
        built = torch.version.cuda or "none"
        yield Finding(
            "warning",
            f"there is one, but PyTorch does not see it (CUDA of this build: {built}); install "
            "the build for your driver, see pytorch.org",
        )
    else:
        yield Finding("ok", "none; everything runs on CPUs")


def _ray(config: Config) -> Iterator[Finding]:
    from tats_ray.actors.ray_compat import WRITTEN_FOR, check_version

    check_version()
    yield Finding("ok", f"Ray {WRITTEN_FOR}, not started")


def _decodes(decoder: str) -> Iterator[Finding]:
    """Writes a clip and reads it back in the process of its own that decodes in runs."""
    import numpy as np

    from tats_ray.data.decode import DecodeRequest
    from tats_ray.data.decoder_process import DecoderProcess
    from tats_ray.data.video_writer import write_h264

    count, side = _CLIP_FRAMES, _CLIP_SIDE
    greys = np.arange(count, dtype=np.uint8) * 10 + 40
    frames = np.ascontiguousarray(
        np.broadcast_to(greys[:, None, None, None], (count, side, side, 3))
    )
    process = DecoderProcess()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "clip.mp4")
            write_h264(path, frames, fps=16)
            request = DecodeRequest(str(path), count, 1, [0.0], side, side, decoder)
            read = process.decode(request, _DECODE_SECONDS).frames[0]
    finally:
        process.close()
    error = np.abs(read.astype(int) - frames).mean()
    if error > _NEAR:
        yield Finding("fails", f"frames are {error:.0f} grey levels off; reinstall {decoder}")
    else:
        yield Finding("ok", f"{decoder} reads the frames of a clip that was written here")


def _decord(config: Config) -> Iterator[Finding]:
    if find_spec("decord") is None:
        yield Finding(
            "warning", "is not installed; PyAV decodes, more slowly: pip install decord (x86-64)"
        )
    else:
        yield from _decodes("decord")


def _pyav(config: Config) -> Iterator[Finding]:
    yield from _decodes("pyav")


def _codecs(config: Config) -> Iterator[Finding]:
    missing = [name for name in _READ_CODECS if not _has_codec(name, "r")]
    if missing:
        yield Finding(
            "warning",
            f"PyAV cannot read {', '.join(missing)}: such videos count as broken; use the wheel "
            "of av from PyPI",
        )
    else:
        yield Finding("ok", f"PyAV reads {', '.join(_READ_CODECS)}")


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    try:
        Codec(name, mode)
    except UnknownCodecError:
        return False
    return True


def _opencv(config: Config) -> Iterator[Finding]:
    from tats_ray.data.motion.trackers import require_opencv
    from tats_ray.data.stage import motion_request

    motion_request(config)  # refuses a run that needs OpenCV where it cannot be imported
    if find_spec("cv2") is None:
        yield Finding("ok", "is not installed; tracks and dense flow need it: tats-ray[motion]")
    else:
        require_opencv("lucas_kanade", "data.motion.source=lucas_kanade")
        yield Finding("ok", "can find point tracks and dense flow")


def _mlflow(config: Config) -> Iterator[Finding]:
    """Makes a store of its own and writes to it."""
    if not config.tracking.mlflow:
        yield Finding("ok", "is not used (tracking.mlflow=false)")
        return
    from mlflow import MlflowClient, __version__

    from tats_ray.tracking.mlflow_compat import prepare_database

    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        prepare_database(uri)
        client = MlflowClient(uri)
        run = client.create_run(client.create_experiment("doctor")).info.run_id
        client.log_metric(run, "loss", 0.5)
        stored = client.get_run(run).data.metrics
    if stored == {"loss": 0.5}:
        yield Finding("ok", f"{__version__} keeps a run in SQLite")
    else:
        yield Finding("fails", f"{__version__} gives {stored} for loss=0.5; reinstall mlflow")


def _shared_memory(config: Config) -> Iterator[Finding]:
    """Ray puts the object store on a disk where shared memory is too small."""
    needed = config.cluster.object_store_mb * 2**20
    if config.cluster.mode != "local":
        yield Finding("ok", f"no object store is made here (cluster.mode={config.cluster.mode})")
    elif not _SHARED.is_dir():
        yield Finding("warning", f"there is no {_SHARED}; Ray runs are slow: mount a tmpfs there")
    elif (free := shutil.disk_usage(_SHARED).free) < needed:
        yield Finding(
            "warning",
            f"{_SHARED} has {free >> 20} MiB, the object store takes {needed >> 20}: Ray will use "
            "the disk, slowly; docker run --shm-size=2g, or a smaller cluster.object_store_mb",
        )
    else:
        yield Finding("ok", f"{_SHARED} has {free >> 20} MiB, {needed >> 20} are needed")


def judge_space(folder: Path, free: int) -> Finding:
    """The space for runs."""
    found = f"{free / 2**30:.1f} GiB free for {folder}"
    if free < _LOW_BYTES:
        return Finding("fails", f"{found}; free some, or set run.output_dir to another disk")
    if free < _FEW_BYTES:
        return Finding("warning", f"{found}; a ViT-B run keeps about 3 GiB of checkpoints")
    return Finding("ok", found)


def _disk(config: Config) -> Iterator[Finding]:
    yield judge_space(config.output_dir, shutil.disk_usage(_existing(config.output_dir)).free)


def _writing(config: Config) -> Iterator[Finding]:
    folder = config.output_dir
    with writing(folder), tempfile.TemporaryFile(dir=_existing(folder)) as new:
        new.write(bytes(2**12))
        new.flush()
        os.fsync(new.fileno())
    yield Finding("ok", f"{config.output_dir} can be written to")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _token(config: Config) -> Iterator[Finding]:
    from tats_ray.actors.auth_token import OTHERS, token_file

    file = token_file()
    if file is None:
        yield Finding("ok", "the environment has Ray's token, or says that there is none")
    elif not file.exists():
        yield Finding("ok", f"{file} is made when Ray is started first")
    elif file.stat().st_mode & OTHERS:
        yield Finding("warning", f"others can read {file}, the key of your clusters: chmod 600 it")
    else:
        yield Finding("ok", f"{file} is yours alone")


CHECKS: dict[str, Callable[[Config], Iterator[Finding]]] = {
    "platform": _platform,
    "torch": _torch,
    "GPU": _gpu,
    "Ray": _ray,
    "decord": _decord,
    "PyAV": _pyav,
    "codecs": _codecs,
    "OpenCV": _opencv,
    "MLflow": _mlflow,
    "shared memory": _shared_memory,
    "disk": _disk,
    "output directory": _writing,
    "token": _token,
}
