"""Private names of Ray 2.60's core and of Ray Data, each with the reason why no public one does."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import ray

from tats_ray import errors

WRITTEN_FOR = "2.60"


def check_version() -> None:
    """Refuses another minor version of Ray: what is below would fail in odd ways.

    Raises:
        ResourceError: names both versions and the remedy.
    """
    if ray.__version__.split(".")[:2] != WRITTEN_FOR.split("."):
        raise errors.ResourceError(
            f"Ray {ray.__version__} is installed, tats_ray needs Ray {WRITTEN_FOR}.*: "
            f"pip install 'ray[default,train,rllib]=={WRITTEN_FOR}.*'"
        )


@contextmanager
def daemons_keep_out_of_signals_way() -> Iterator[None]:
    """Around the start of a local cluster.

    Ctrl-C in a terminal and many schedulers' SIGTERM go to the whole process group. Ray's daemons,
    and the workers below them, would be gone before the command has asked them for the last state;
    so every daemon gets a group of its own. They still end with the command: the kernel kills them
    when it dies. Ray has no setting for the group of its daemons.

    Ray also takes over SIGTERM, to kill its daemons and leave with a code of its own. A command
    that has a handler keeps it.
    """
    from ray._private import services, utils

    popen, take_over = services.ConsolePopen, utils.set_sigterm_handler

    class InOwnGroup(popen):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, process_group=0, **kwargs)

    services.ConsolePopen = InOwnGroup
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        services.ConsolePopen, utils.set_sigterm_handler = popen, take_over
        if callable(handler) and threading.current_thread() is threading.main_thread():
            # Ray's core has put one of its own before it, which prints a trace, and at a second
            # signal ends the process.
            signal.signal(signal.SIGTERM, handler)


def local_daemons() -> dict[str, subprocess.Popen[bytes]]:
    """What a local cluster cannot do without, by name; nothing where this process has none.

    Ray has no public way to ask for them.
    """
    from ray._private import ray_constants, worker

    names = (ray_constants.PROCESS_TYPE_GCS_SERVER, ray_constants.PROCESS_TYPE_RAYLET)
    node = worker._global_node
    processes = {} if node is None else node.all_processes
    return {name: processes[name][0].process for name in names if processes.get(name)}


@cache  # its second call in a process would only wrap the first one's work
def keep_daemons_off_the_console() -> None:
    """Ray prints what its daemons say of lost processes, in colour and whatever `log_to_driver`;
    the run tells of them in a line of its own, and the daemons' logs keep the rest."""
    from ray._private import worker

    published = worker.print_to_stdstream

    def print_others(data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        if data.get("pid") != "raylet":
            published(data, *args, **kwargs)

    worker.print_to_stdstream = print_others


def death_cause(error: BaseException) -> str:
    """The first cause of a failure in one line, without Ray's wrapping and guesses."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    for sign in (" Some common causes", " The task may or may not", " The actor never ran"):
        text = text.split(sign)[0]
    _, died, detail = text.rpartition("Worker exit detail: ")
    return f"its process died: {detail}" if died else f"{type(error).__name__}: {text}"


def own_error(error: BaseException) -> BaseException:
    """Our error that a task of Ray Data raised; else what came. Ray Data wraps it in one of its
    own, and of that only the text arrives."""
    for line in reversed(str(error).splitlines()):
        name, _, message = line.partition(": ")
        kind = getattr(errors, name.rpartition("tats_ray.errors.")[2], None)
        if isinstance(kind, type) and issubclass(kind, errors.TatsRayError):
            return kind(message)  # tasks keep VideoDecodeError, which needs more, to themselves
    return error


def block_references(dataset: Any) -> Iterator[tuple[Any, int]]:
    """References to a dataset's blocks and their row counts, in order.

    Ray Data's public iterators copy blocks to the consumer.
    """
    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            yield entry.ref, entry.metadata.num_rows
