"""Rollout workers that are killed, stalled or always failing, under a real RLlib Algorithm."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tats_ray.errors import ComponentFailedError
from tests.iterations import drive_on_ray
from tests.processes import later, workers

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("cluster")]

RUNNER = "MaskingEnvRunner"
TWO = ["rl.rollout_workers=2", "rl.rollout_clips=2", "rl.staleness=1"]
STEPS = 200  # time for lost workers to be there again, on a busy machine too


class _Watch:
    """Acts once after a round, and says how many actors there are and how long they were fewer."""

    def __init__(self, act, after=2):
        self._act, self._after = act, after
        self.lost_at = self.back_at = None
        self.versions = []

    def __call__(self, executor, step):
        group = executor.algorithm.env_runner_group
        if step == self._after:
            self._act()
            self.lost_at = time.monotonic()
        elif self.lost_at and not self.back_at:
            time.sleep(0.3)  # rounds of a small model would be over before an actor is there
            if group.num_healthy_remote_workers() == 2 and step > self._after + 1:
                self.back_at = time.monotonic()
        elif self.back_at:
            self.versions = group.foreach_env_runner(
                lambda runner: (runner._policy_version, runner._mae_version),
                local_env_runner=False,
            )


def _assert_recovered(watch, reports, steps):
    assert watch.back_at, "the workers did not come back"
    print(f"back after {watch.back_at - watch.lost_at:.1f} s")
    assert reports[steps]["rollout/workers"] == 2
    assert max(metrics["rollout/staleness"] for metrics in reports.values()) <= 1
    # Round `steps - 1` drew with the policy of its number, and so did the actors that came back.
    assert {policy for policy, _ in watch.versions} == {steps - 1}
    assert all(mae >= steps - 2 for _, mae in watch.versions)


def _failures(reports):
    return sum(metrics["rollout/failures"] for metrics in reports.values())


def test_an_actor_killed_in_the_middle_of_a_rollout(synthetic, tmp_path):
    def act():
        victim = workers(RUNNER)[0]
        victim.suspend()  # it gets the next round's request, and never answers
        later(0.5, victim.kill)

    watch, steps = _Watch(act), STEPS
    reports, states, _ = drive_on_ray(synthetic, tmp_path, steps, *TWO, between=watch)
    _assert_recovered(watch, reports, steps)
    assert reports[4]["rollout/failures"] == 1
    assert states[steps].policy.version == steps


def test_all_actors_killed_at_once(synthetic, tmp_path):
    def act():
        victims = workers(RUNNER)
        assert len(victims) == 2
        for victim in victims:
            victim.kill()

    watch, steps = _Watch(act), STEPS
    reports, _, _ = drive_on_ray(synthetic, tmp_path, steps, *TWO, between=watch)
    _assert_recovered(watch, reports, steps)
    assert reports[4]["rollout/failures"] >= 2


def test_a_stalled_actor_is_replaced(synthetic, tmp_path):
    stalled, limit = [], 2

    def act():
        stalled.append(workers(RUNNER)[0])
        stalled[0].suspend()

    watch, steps = _Watch(act), STEPS
    reports, _, _ = drive_on_ray(
        synthetic, tmp_path, steps, *TWO, f"rl.rollout_seconds={limit}", between=watch
    )
    _assert_recovered(watch, reports, steps)
    assert _failures(reports) == reports[4]["rollout/failures"] == 1
    assert not stalled[0].is_running() or stalled[0].status() == psutil.STATUS_ZOMBIE


def test_actors_that_always_die_end_the_run_with_the_cause(synthetic, tmp_path):
    """Each is killed as soon as it is there, until Ray gives it up."""
    done = []

    def kill_all():
        if not done:
            for victim in workers(RUNNER):
                victim.send_signal(signal.SIGKILL)
            later(0.2, kill_all)

    def between(executor, step):
        if step == 2:
            kill_all()

    try:
        with pytest.raises(
            ComponentFailedError, match=r"rollouts keep failing: rollout worker \d: .*"
        ):
            drive_on_ray(synthetic, tmp_path, 30, *TWO, "rl.max_worker_restarts=2", between=between)
    finally:
        done.append(True)
