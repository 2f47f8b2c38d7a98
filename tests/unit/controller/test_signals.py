"""Real signals to this process, and what a run is told of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tats_ray.controller.signals import StopRequest

FIRST, ECHO = signal.SIGTERM, signal.SIGINT


@pytest.fixture
def stop():
    before = {number: signal.getsignal(number) for number in (FIRST, ECHO)}
    request = StopRequest()
    request.install()
    yield request
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_is_noted_where_work_must_be_finished(stop):
    with stop.deferring():
        signal.raise_signal(FIRST)
        assert stop.is_set
        signal.raise_signal(ECHO)  # to the process group, too
    assert stop.asked_once


def test_a_later_second_one_interrupts(stop):
    with stop.deferring():
        signal.raise_signal(FIRST)
        time.sleep(1.1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(ECHO)
    assert stop.is_set
    assert not stop.asked_once


def test_a_wait_is_interrupted_by_the_first(stop):
    with pytest.raises(KeyboardInterrupt), stop.deferring(), stop.interrupting():
        signal.raise_signal(FIRST)
    assert stop.asked_once


def test_a_wait_is_not_begun_once_asked(stop):
    begun = []
    with stop.deferring():
        signal.raise_signal(FIRST)
        with pytest.raises(KeyboardInterrupt), stop.interrupting():
            begun.append(True)
    assert begun == []


def test_outside_of_training_the_first_interrupts(stop):
    with stop.deferring():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(FIRST)
    assert stop.asked_once


def test_a_group_of_its_own_and_no_handler_where_there_is_none():
    """In processes: Ray's start is wrapped for real."""
    script = (
        "import os, signal, sys\n"
        "from tats_ray.actors.ray_compat import daemons_keep_out_of_signals_way\n"
        "from ray._private import services, utils\n"
        "if sys.argv[1] == 'own': signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "before = signal.getsignal(signal.SIGTERM)\n"
        "with daemons_keep_out_of_signals_way():\n"
        "    child = services.ConsolePopen(['sleep', '60'])\n"
        "    utils.set_sigterm_handler(lambda *_: None)\n"
        "alone = os.getpgid(child.pid) == child.pid\n"
        "child.kill()\n"
        "after = services.ConsolePopen(['sleep', '60'])\n"
        "print(alone, os.getpgid(after.pid) == os.getpgid(0),"
        " signal.getsignal(signal.SIGTERM) == before)\n"
        "after.kill()\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script, kind], capture_output=True, text=True, check=True,
            env=os.environ,
        ).stdout.split()
        for kind in ("own", "none")
    ]  # fmt: skip
    assert said == [["True", "True", "True"], ["True", "True", "False"]]
