"""A crash, a hang or an odd fault costs one item; a full disk ends the work on all."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tats_ray.data.each_video import each_video
from tats_ray.data.isolated import Answer, IsolatedProcess
from tats_ray.errors import (
    ComponentFailedError,
    MotionPriorError,
    StorageError,
    VideoDecodeError,
)


def _each(task, items, seconds=60.0):
    return each_video(
        lambda process, item: process.ask(task, f"v{item}", [item], seconds).content,
        items,
        "testing",
    )


def _crash_on_three(path: str, number: int) -> Answer:
    if number == 3:
        os._exit(1)
    if number == 4:
        raise KeyError("odd")
    if number == 5:
        raise MotionPriorError(path, "rests")
    return Answer(number)


def test_a_crash_or_an_odd_fault_costs_one_item():
    *good, crash, odd, motion, last = _each(_crash_on_three, range(7))
    assert (good, last) == ([0, 1, 2], 6)
    assert str(crash).startswith("v3: the process for testing died (status 1): this file crashes")
    assert (type(odd), str(odd)) == (VideoDecodeError, "v4: KeyError: 'odd'")
    assert (type(motion), str(motion)) == (MotionPriorError, "v5: rests")


def _sleep_on_one(path: str, number: int) -> Answer:
    time.sleep(1000 * (number == 1))
    return Answer(os.getpid())


def test_a_passed_limit_costs_one_item_and_one_process():
    before = time.monotonic()
    answers = _each(_sleep_on_one, range(12), 2.0)
    assert time.monotonic() - before < 60
    assert str(answers.pop(1)) == (
        "v1: testing took more than 2 s; leave the file out, or raise --video-seconds"
    )
    assert 1 <= len(set(answers)) <= (os.cpu_count() or 1) + 1
    assert not any(psutil.pid_exists(pid) for pid in answers)


def _full_on_two(path: str, folder: str, number: int) -> Answer:
    (Path(folder) / str(number)).touch()
    if number == 2:
        raise StorageError("/d: cannot be written")
    time.sleep(0.2 * (number > 2))
    return Answer(number)


def test_a_full_disk_ends_the_work_and_nothing_is_begun_after_it(tmp_path):
    """Items beside the failing one may run; far fewer than the many that wait."""

    def work(process, number):
        return process.ask(_full_on_two, f"v{number}", [str(tmp_path), number], 60.0)

    with pytest.raises(StorageError, match="/d: cannot be written"):
        each_video(work, range(1000), "testing")
    begun = {int(path.name) for path in tmp_path.iterdir()}
    assert max(begun) <= 2 + (os.cpu_count() or 1)


def test_items_are_taken_as_they_are_needed():
    """A million items must not become a million tasks in memory."""

    class Items:
        taken = 0

        def __len__(self):
            return 1_000_000

        def __iter__(self):
            for number in range(1_000_000):
                self.taken += 1
                yield number

    def fails_late(process, number):
        if number == 1000:
            raise StorageError("/d: cannot be written")
        return number

    items = Items()
    with pytest.raises(StorageError):
        each_video(fails_late, items, "testing")
    assert items.taken < 1000 + 300


def _end(path: str) -> Answer:
    return Answer()


_end.__module__ = "no_such_module"


def test_processes_that_cannot_start_are_told_and_blamed_on_no_item():
    wanted = r"for testing ended while it started \(status 1\); `python -c 'import no_such_module'`"
    with pytest.raises(ComponentFailedError, match=wanted):
        each_video(lambda process, item: process.ask(_end, item, [], 9.0), ["a", "b"], "testing")


@pytest.fixture
def process():
    process = IsolatedProcess("testing", "the limit")
    yield process
    process.close()


def _arrays(path: str, seed: int) -> Answer:
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(0, 255, (2, 0, 3), np.uint8), rng.random((5, 7), np.float32).T]
    return Answer({"path": path, "pid": os.getpid()}, [*arrays, np.float64(2.5).reshape(())])


def test_arrays_cross_as_they_are(process):
    odd = "/v/ü\udcff\n.mp4"
    answer = process.ask(_arrays, odd, [7], 9.0)
    assert answer.content["path"] == odd
    for got, wanted in zip(answer.arrays, _arrays(odd, 7).arrays, strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        assert np.array_equal(got, wanted)


def test_signals_meant_for_the_command_leave_the_child_alone(process):
    """Ctrl-C and `ray job stop` reach every process; a killed child would look like a bad video."""
    pid = process.ask(_arrays, "a", [0], 9.0).content["pid"]
    assert os.getpgid(pid) != os.getpgid(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    assert process.ask(_arrays, "a", [0], 9.0).content["pid"] == pid


def test_a_task_in_another_thread_is_abandoned_at_once(process):
    process.ask(_sleep_on_one, "a", [0], 9.0)
    ended = []

    def work():
        try:
            process.ask(_sleep_on_one, "a", [1], 500.0)
        except EOFError:
            ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    process.abandon()
    thread.join(10)
    assert ended
    with pytest.raises(EOFError):
        process.ask(_sleep_on_one, "a", [0], 9.0)
