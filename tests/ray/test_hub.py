"""The hub hands out versions and items in order, and never waits for ever."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import ray

from tats_ray.actors.hub import HubQuarantine, start_hub
from tats_ray.data.clips import ClipBatch, Cursor
from tats_ray.errors import NonFiniteError, VideoDecodeError
from tats_ray.training.work import StepReport, TrainState, WorkItem

pytestmark = pytest.mark.usefixtures("cluster")


def _item(step):
    batch = ClipBatch(8 * step, (), Cursor(step, 0))
    return WorkItem(step, batch, np.zeros((0, 4), dtype=np.int64), None, snapshot=False)


def _state(step):
    return TrainState(step, {"w": np.full(3, step, dtype=np.float32)}, {}, {})


@pytest.fixture
def hub():
    actor = start_hub(f"hub-{time.monotonic_ns()}", {"/old.mp4": "truncated"})
    yield actor
    ray.kill(actor)


def _publish(hub, version, reports=()):
    ray.get(hub.publish.remote(version, {"w": np.full(3, version)}, list(reports)))


def test_weights_are_waited_for_and_versions_only_grow(hub):
    assert ray.get(hub.weights.remote(0, 0.05)) is None
    threading.Timer(0.3, _publish, (hub, 2)).start()
    weights = ray.get(hub.weights.remote(2, 20))
    assert weights.version == 2
    _publish(hub, 1)  # a replay after a restart
    again = ray.get(hub.weights.remote(1, 1))
    assert again.version == 2
    assert ray.get(again.ref)["w"].tolist() == [2, 2, 2]


def test_weights_outlive_the_process_that_published_them(hub):
    @ray.remote
    def publish(hub):
        ray.get(hub.publish.remote(5, {"w": np.ones(300_000)}, []))

    ray.get(publish.options(num_cpus=0).remote(hub))
    weights = ray.get(hub.weights.remote(5, 5))
    assert ray.get(weights.ref)["w"].sum() == 300_000


def test_items_wait_until_they_are_pushed_and_stay_until_a_snapshot(hub):
    assert ray.get(hub.item.remote(0, 0.05)) is None
    for step in range(3):
        ray.get(hub.push.remote(_item(step)))
    assert [ray.get(hub.item.remote(step, 1)).step for step in (0, 1, 2, 0)] == [0, 1, 2, 0]
    ray.get(hub.store_snapshot.remote(_state(2), False, []))
    assert ray.get(hub.item.remote(1, 0.05)) is None
    assert ray.get(hub.item.remote(2, 1)).step == 2
    snapshot = ray.get(hub.newest_snapshot.remote())
    assert (snapshot.version, ray.get(snapshot.ref).mae["w"].tolist()) == (2, [2, 2, 2])


def test_the_end_is_said(hub):
    ray.get(hub.push.remote(_item(0)))
    ray.get(hub.end.remote(1))
    assert ray.get(hub.item.remote(0, 1)).step == 0
    assert ray.get(hub.item.remote(1, 1)) == "end"


def test_news_come_once_and_replayed_reports_never(hub):
    _publish(hub, 1, [StepReport(1, {"loss": 1.0})])
    reports = [StepReport(2, {"loss": 2.0})]
    ray.get(hub.store_snapshot.remote(_state(2), True, reports))
    _publish(hub, 2, reports)
    news = ray.get(hub.drain.remote(2, 5))
    assert [report.step for report in news.reports] == [1, 2]
    assert [state.step for state in news.states] == [2]
    _publish(hub, 2, [StepReport(2, {"loss": 2.0}), StepReport(3, {"loss": 3.0})])
    later = ray.get(hub.drain.remote(0, 0.0))
    assert [report.step for report in later.reports] == [3]
    assert later.states == []


def test_a_failure_ends_waits_at_once(hub):
    threading.Timer(0.3, lambda: hub.fail.remote(NonFiniteError("no", (3, 4)))).start()
    started = time.monotonic()
    assert ray.get(hub.weights.remote(99, 60)) is None
    assert time.monotonic() - started < 30
    failure = ray.get(hub.drain.remote(0, 0)).failure
    assert (type(failure), str(failure), failure.clips) == (NonFiniteError, "no", (3, 4))


def test_broken_videos_are_shared(hub):
    book = HubQuarantine(hub)
    book.add([VideoDecodeError("/new.mp4", "empty"), VideoDecodeError("/old.mp4", "again")])
    assert book.known() == {"/old.mp4": "truncated", "/new.mp4": "empty"}
