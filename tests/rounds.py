"""Rounds of a backend as the driver runs them, for the tests that compare backends."""

from __future__ import annotations

from tats_ray.data.clips import Cursor


def drive(backend, config, steps, state=None, cursor=None, first=0, between=None):
    """Runs rounds `first` to `steps`, with a snapshot after the second.

    Args:
        between: is called with the backend and the step after every round.

    Returns:
        Figures by step, states by step, and the cursor behind the last batch.
    """
    batch_size = config.train.batch_size
    reports, states = {}, {}
    after = cursor or Cursor()

    def note(finished):
        for report in finished.reports:
            assert report.step not in reports, "a step was reported twice"
            reports[report.step] = report.figures
        states.update({state.step: state for state in finished.states})

    try:
        backend.start(state, after, first)
        for step in range(first, steps):
            batch = backend.next_batch(step * batch_size, batch_size)
            after = batch.after
            backend.run_round(step, batch, snapshot=step + 1 == 2)
            note(backend.finished())
            if between is not None:
                between(backend, step)
        note(backend.finish(steps))
    finally:
        backend.close()
    assert list(reports) == list(range(first + 1, steps + 1)), "every step is reported in order"
    return reports, states, after
