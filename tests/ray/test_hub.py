"""The hub hands out versions and items in order, and never waits for ever."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import ray

from tats_ray.actors.hub import HubClient, WorkItem, running_hub
from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.errors import NonFiniteError, VideoDecodeError
from tats_ray.training.reports import StepReport, TrainerState

pytestmark = pytest.mark.usefixtures("cluster")


def _item(step):
    batch = ClipBatch(8 * step, (), Cursor(step, 0))
    return WorkItem(step, batch, snapshot=False)


def _state(step):
    return TrainerState(step, {"mae": {"w": np.full(3, step, dtype=np.float32)}})


@pytest.fixture
def hub():
    name = f"hub-{time.monotonic_ns()}"
    with running_hub(name, {"/old.mp4": "truncated"}):
        yield HubClient(ray.get_actor(name))


def _publish(hub, version, reports=()):
    hub.publish(version, {"w": np.full(3, version)}, list(reports))


def test_weights_are_waited_for_and_versions_only_grow(hub):
    assert hub.weights(0, 0.05) is None
    threading.Timer(0.3, _publish, (hub, 2)).start()
    weights = hub.weights(2, 20)
    assert weights.version == 2
    _publish(hub, 1)  # a replay after a restart
    again = hub.weights(1, 1)
    assert again.version == 2
    assert ray.get(again.ref)["w"].tolist() == [2, 2, 2]


@pytest.mark.slow
def test_weights_outlive_the_process_that_published_them(hub):
    @ray.remote
    def publish(hub):
        hub.publish(5, {"w": np.ones(300_000)}, [])

    ray.get(publish.options(num_cpus=0).remote(hub))
    weights = hub.weights(5, 5)
    assert ray.get(weights.ref)["w"].sum() == 300_000


def test_items_wait_until_they_are_pushed_and_stay_until_a_snapshot(hub):
    assert hub.item(0, 0.05) is None
    for step in range(3):
        hub.push(_item(step))
    assert [hub.item(step, 1).step for step in (0, 1, 2, 0)] == [0, 1, 2, 0]
    hub.store_snapshot(_state(2), False, [])
    assert hub.item(1, 0.05) is None
    assert hub.item(2, 1).step == 2
    snapshot = hub.newest_snapshot()
    assert (snapshot.version, ray.get(snapshot.ref).files["mae"]["w"].tolist()) == (2, [2, 2, 2])


@pytest.mark.slow
def test_the_end_is_said(hub):
    hub.push(_item(0))
    hub.end(1)
    assert hub.item(0, 1).step == 0
    assert hub.item(1, 1) == "end"


def test_events_come_once_and_replayed_reports_never(hub):
    _publish(hub, 1, [StepReport(1, {"loss": 1.0})])
    reports = [StepReport(2, {"loss": 2.0})]
    hub.store_snapshot(_state(2), True, reports)
    _publish(hub, 2, reports)
    events = hub.drain(2, 5)
    assert [report.step for report in events.reports] == [1, 2]
    assert [state.step for state in events.states] == [2]
    _publish(hub, 2, [StepReport(2, {"loss": 2.0}), StepReport(3, {"loss": 3.0})])
    later = hub.drain(0, 0.0)
    assert [report.step for report in later.reports] == [3]
    assert later.states == []


@pytest.mark.slow
def test_a_failure_ends_waits_at_once(hub):
    threading.Timer(0.3, lambda: hub.fail(NonFiniteError("no", (3, 4)))).start()
    started = time.monotonic()
    assert hub.weights(99, 60) is None
    assert time.monotonic() - started < 30
    failure = hub.drain(0, 0).failure
    assert (type(failure), str(failure), failure.clips) == (NonFiniteError, "no", (3, 4))


@pytest.mark.slow
def test_broken_videos_are_shared(hub):
    hub.add([VideoDecodeError("/new.mp4", "empty"), VideoDecodeError("/old.mp4", "again")])
    assert hub.known() == {"/old.mp4": "truncated", "/new.mp4": "empty"}
