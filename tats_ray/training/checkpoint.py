"""Checkpoints: a directory of safetensors and JSON, written aside and renamed.

There is one writer, the driver. Nothing here is pickled, so a checkpoint from anywhere can be
opened without running code.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tats_ray.data.clips import Count, Cursor
from tats_ray.errors import CheckpointError
from tats_ray.models.state import State
from tats_ray.rl.learner import PolicyState
from tats_ray.storage import writing
from tats_ray.training.reports import TrainerState

FORMAT = 2
AVERAGE = "mae_average"
_PREFIX = "step_"
_BEFORE = ".before"  # a checkpoint that makes place for one of the same step
_DOCUMENT_BYTES = 16 << 20
MEND = "use another checkpoint; a run continues from the one before if this folder is removed"


@dataclass(frozen=True)
class RunState:
    """Everything that learns in a run, after the same number of steps."""

    trainer: TrainerState
    policy: PolicyState | None  # None where no rollouts train one

    @property
    def step(self) -> int:
        """Finished steps."""
        return self.trainer.step

    @property
    def policy_version(self) -> int:
        """PPO updates so far."""
        return 0 if self.policy is None else self.policy.version

    def files(self) -> dict[str, State]:
        """Tensors by the name of their safetensors file."""
        if self.policy is None:
            return self.trainer.files
        policy = {"sampler": self.policy.sampler, "sampler_optimizer": self.policy.optimizer}
        return self.trainer.files | policy


@dataclass(frozen=True)
class Progress:
    """Where a run stands, beside its weights.

    Attributes:
        step: finished steps; also the autoencoder's version.
        clips: clips trained on.
        cursor: place in the stream of blocks behind them.
        policy_version: PPO updates so far.
        interval: name -> (sum, count) of the logging interval that the step falls into.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    step: Count
    clips: Count
    cursor: Cursor
    policy_version: Count
    interval: dict[str, tuple[float, Count]] = field(default_factory=dict)


def write_checkpoint(folder: Path, state: RunState, progress: Progress, keep: int) -> Path:
    """Writes `step_<n>` and removes all but the newest `keep`.

    Raises:
        StorageError: disk full or read-only; the previous checkpoints are intact.
    """
    final = folder / f"{_PREFIX}{progress.step:08d}"
    aside = folder / f".{final.name}.{os.getpid()}"
    with writing(final):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            for name, tensors in state.files().items():
                save_file(tensors, aside / f"{name}.safetensors")
            fields = {"format": FORMAT, **asdict(progress)}
            for name, content in {**state.trainer.documents, "progress": fields}.items():
                (aside / f"{name}.json").write_text(json.dumps(content, indent=2))
            for file in aside.iterdir():
                _flush(file)
            _put(aside, final)
            _flush(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    for old in checkpoints(folder)[:-keep]:
        with writing(old):
            shutil.rmtree(old)
    return final


def _put(aside: Path, final: Path) -> None:
    """Renames; the same step written before a resume leaves as a whole, never file by file."""
    if not final.exists():
        aside.rename(final)
        return
    before = final.with_name(f"{aside.name}{_BEFORE}")
    shutil.rmtree(before, ignore_errors=True)
    final.rename(before)
    aside.rename(final)
    shutil.rmtree(before)


def clean_up(folder: Path) -> None:
    """Removes what a killed writer left, and puts back what it had taken away.

    Only for the one writer: what is written aside looks the same while it is being written.
    """
    for left in folder.glob(f".{_PREFIX}*"):
        final = folder / left.name.split(".")[1]
        with writing(left):
            if left.suffix == _BEFORE and not final.exists():
                left.rename(final)
            else:
                shutil.rmtree(left)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "progress.json").is_file())


def newest_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run, or the folder itself where it is one.

    Raises:
        CheckpointError: there is none.
    """
    if (run / "progress.json").is_file():
        return run
    found = checkpoints(run / "checkpoints")
    if not found:
        raise CheckpointError(f"{run}: contains no complete checkpoint")
    return found[-1]


def read_progress(path: Path) -> Progress:
    """The JSON part.

    Raises:
        CheckpointError: names the file and the fault.
    """
    file = path / "progress.json"
    content = read_document(file)
    if isinstance(content, dict) and content.pop("format", None) != FORMAT:
        raise CheckpointError(f"{file}: written by another version of tats_ray")
    try:
        return TypeAdapter(Progress).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"])) or "content"
        raise CheckpointError(f"{file}: {field}: {fault['msg'].lower()}; {MEND}") from None


def read_document(file: Path) -> Any:
    """A JSON file of a checkpoint.

    Raises:
        CheckpointError: names the file and the fault.
    """
    _check_file(file, _DOCUMENT_BYTES)
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); {MEND}") from None


def _check_file(file: Path, most: int) -> None:
    """Before any byte is read: what a link leads to, a device holds or a hole pretends has no end.

    Raises:
        CheckpointError: names the file and what it is.
    """
    try:
        status = file.lstat()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}); {MEND}") from None
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{file}: is a link, folder, pipe or device, not a file; {MEND}")
    if status.st_size > most:
        raise CheckpointError(
            f"{file}: has {status.st_size:,} bytes, more than the {most:,} that it may have here; "
            f"{MEND}"
        )


def read_state(path: Path) -> RunState:
    """State of a pre-training run.

    Raises:
        CheckpointError: names the file and the fault; nothing in it is executed.
    """
    progress = read_progress(path)
    files = {name: read_tensors(path, name) for name in ("mae", "mae_optimizer")}
    if progress.step and not files["mae_optimizer"]:
        raise CheckpointError(f"{path / 'mae_optimizer.safetensors'}: is empty; {MEND}")
    for name in ("auxiliary", AVERAGE):
        if tensors := read_optional_tensors(path, name):
            files[name] = tensors
    trainer = TrainerState(progress.step, files)
    if not (path / "sampler.safetensors").exists():
        return RunState(trainer, None)
    policy = PolicyState(
        progress.policy_version,
        read_tensors(path, "sampler"),
        read_tensors(path, "sampler_optimizer"),
    )
    return RunState(trainer, policy)


def read_tensors(path: Path, name: str) -> State:
    """One safetensors file of a checkpoint, as `read_safetensors`."""
    return read_safetensors(path / f"{name}.safetensors")


def read_safetensors(file: Path) -> State:
    """Finite tensors of a file.

    Raises:
        CheckpointError: names the file and the fault.
    """
    _check_file(file, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))  # this machine's
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file}: is not a complete safetensors file ({error}); {MEND}"
        ) from None
    except (KeyError, TypeError) as error:  # types that numpy does not have, such as bfloat16
        raise CheckpointError(f"{file}: contains a type that is not supported ({error})") from None
    for key, value in tensors.items():
        if not np.isfinite(value).all():
            raise CheckpointError(f"{file}: '{key}' holds values that are not finite; {MEND}")
    return tensors


def read_autoencoder(path: Path) -> State:
    """What a checkpoint of a pre-training run gives to whoever evaluates or fine-tunes it: the
    average of the weights where one was kept.

    Raises:
        CheckpointError: as `read_tensors`.
    """
    return read_optional_tensors(path, AVERAGE) or read_tensors(path, "mae")


def read_optional_tensors(path: Path, name: str) -> State:
    """As `read_tensors`; empty where the checkpoint has no such file."""
    return read_tensors(path, name) if (path / f"{name}.safetensors").exists() else {}


def _flush(path: Path) -> None:
    """Makes a file or a directory's entries durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
