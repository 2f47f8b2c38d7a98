"""Requests to a run at work, from any process that may join its cluster."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tats_ray.actors.cluster import start_ray
from tats_ray.config.runtime import ClusterSettings
from tats_ray.errors import ResourceError, RunDirectoryError
from tats_ray.storage import replacing

_ANSWER_SECONDS = 5.0
_FILE = "cluster.json"  # in a run's folder for what executors keep, while it is at work


@dataclass(frozen=True)
class _Place:
    """Where a run is at work.

    Attributes:
        address: of the cluster.
        local: whether the run has started the cluster, which only its machine reaches.
        hub: name of the run's hub.
        rollout_workers: at the beginning; 0 where the run has none.
    """

    address: str
    local: bool
    hub: str
    rollout_workers: int


@contextmanager
def open_to_requests(
    folder: Path, hub: str, rollout_workers: int, *, local: bool
) -> Iterator[None]:
    """Says in a run's folder where the run is at work, as long as the block lasts.

    Args:
        local: whether the run has started its cluster.
        hub: name of the run's hub.
        rollout_workers: 0 where the run has none.
    """
    import ray

    place = _Place(ray.get_runtime_context().gcs_address, local, hub, rollout_workers)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / _FILE) as aside:
        aside.write_text(json.dumps(asdict(place)))
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            (folder / _FILE).unlink()


def ask_for_workers(folder: Path, run: Path, count: int) -> None:
    """Asks a run at work for another number of rollout workers; it follows at its next iteration.

    Args:
        folder: of the run, for what executors keep.
        run: the run's directory, for messages.

    Raises:
        RunDirectoryError: the run is not at work on Ray, or has no rollout workers.
        ResourceError: its cluster cannot be reached.
    """
    place = _read(folder / _FILE, run)
    if not place.rollout_workers:
        raise RunDirectoryError(
            f"{run}: has no rollout workers; a learned sampler with rl.rewards=workers has some"
        )
    _check_answers(place.address, run)
    cluster = ClusterSettings(mode="address", address=place.address)
    start_ray(cluster, needed=0, reached_here_only=place.local)
    from tats_ray.actors.hub import find_hub  # Ray reads its environment when it is imported

    hub = find_hub(place.hub)
    if hub is None:
        raise ResourceError(
            f"{run}: its hub is not on the cluster at {place.address}; the run has ended, or is "
            "starting anew: try again when it has reported a step"
        )
    hub.ask_for_workers(count)


def _check_answers(address: str, run: Path) -> None:
    """Ray itself would try for minutes to join a cluster that is gone."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"{run}: its cluster does not answer at {address} ({error}); a run without "
            "cluster.mode=address is reached from its own machine only, and not after its end"
        ) from None


def _read(file: Path, run: Path) -> _Place:
    try:
        place = json.loads(file.read_text())
        return _Place(
            str(place["address"]), bool(place["local"]), str(place["hub"]),
            int(place["rollout_workers"]),
        )  # fmt: skip
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{run}: is not at work on Ray; only a running run can be scaled"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"{file}: cannot be read ({error}); start the run anew") from None
