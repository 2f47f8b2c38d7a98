"""Between two reports nothing waits for the device: no number is read, nothing is copied back."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tats_ray.controller.loop import run_iterations
from tests.conftest import tiny_config
from tests.iterations import Recorder, Training

# What takes a number or an array out of a tensor; on a GPU each would wait for all work before it.
COPIES = ("cpu", "numpy", "tolist", "__array__")


class NoScalars(TorchDispatchMode):
    """Fails where Python asks a tensor for its value: `.item()`, `if`, `float`, `int`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value is read"
        return func(*args, **(kwargs or {}))


def _refused(*args, **kwargs):
    raise AssertionError("a tensor is copied back")


class _Records(Recorder):
    def wants_state(self, step):
        return False


@pytest.mark.parametrize(
    "overrides",
    [
        ["masking.system=random", "train.accumulate=2"],
        ["masking.system=difference", "masking.compensate=true"],
        ["masking.system=adamae", "masking.heads=2"],
        ["masking.system=tats", "rl.epochs=2", "rl.minibatch_clips=4"],
        ["masking.system=tats", "rl.rewards=training", "masking.sampler.reads=pixels"],
    ],
    ids=["random", "difference", "adamae", "tats", "tats on its own errors"],
)
def test_no_step_waits_for_the_device(overrides, monkeypatch):
    config = tiny_config("tracking.log_interval=4", "data.augment.crop=multi_scale", *overrides)
    training, recorder = Training(config), _Records()
    with monkeypatch.context() as patched:
        for name in COPIES:
            patched.setattr(torch.Tensor, name, _refused)
        with NoScalars():
            for step in range(3):
                run_iterations(training.executor, recorder, range(step, step + 1))
    assert recorder.metrics == {}
    run_iterations(training.executor, recorder, range(3, 4))
    assert sorted(recorder.metrics) == [1, 2, 3, 4]


def test_what_would_wait_is_noticed():
    with pytest.raises(AssertionError, match="a value is read"), NoScalars():
        torch.ones(1).sum().item()
