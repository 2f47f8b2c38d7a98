"""cluster.placement: short to write, and refused in one line where Ray could not use it."""

from __future__ import annotations

import pytest

from tats_ray.config import config_from_dict, load_config
from tats_ray.config.placement import Placement
from tats_ray.errors import ConfigError

AT = "cluster.placement"


def _placed(*overrides):
    return load_config(None, ["run.name=x", *overrides]).cluster.placement


def test_nothing_is_placed_unless_it_is_asked_for():
    placement = _placed()
    assert placement.rollout is placement.learner is placement.train is placement.decode is None


def test_one_line_places_a_kind_and_a_dotted_one_does_too():
    text = "{accelerator: A100, resources: {rack: 1}, labels: {zone: 'in(a, b)'}}"
    wanted = Placement(accelerator="A100", resources={"rack": 1.0}, labels={"zone": "in(a, b)"})
    assert _placed(f"{AT}.rollout={text}").rollout == wanted
    dotted = ("accelerator=A100", "resources.rack=1", "labels.zone=in(a, b)")
    assert _placed(*(f"{AT}.rollout.{setting}" for setting in dotted)).rollout == wanted


def test_a_placed_configuration_comes_back_from_its_plain_form():
    config = load_config(None, ["run.name=x", f"{AT}.train={{labels: {{ray.io/zone: '!b'}}}}"])
    assert config_from_dict(config.model_dump()) == config


@pytest.mark.parametrize(
    ("setting", "field", "reason"),
    [
        ("decode={rack: 1}", "decode.rack", "unknown key"),
        ("decode=rack", "decode", "got 'rack'"),
        ("train.accelerator='A 100'", "train.accelerator", "pattern"),
        ("train.resources={CPU: 2}", "train.resources", "no custom resource; set cluster.*_cpus"),
        ("train.resources={GPU: 1}", "train.resources", "set cluster.train_worker_gpus"),
        ("train.resources={'node:10.0.0.1': 1}", "train.resources", "leave out any colon"),
        ("train.resources={rack: 0}", "train.resources", "at least 0.0001 of it"),
        ("train.resources={rack: -1}", "train.resources", "rack is -1"),
        ("train.resources={rack: one}", "train.resources.rack", "valid number"),
        ("train.labels={a b: c}", "train.labels", "write name or prefix/name"),
        ("train.labels={zone: 'in(a'}", "train.labels", "no value of label zone"),
        ("train.labels={zone: 1}", "train.labels.zone", "valid string"),
        ("learner.labels={zone: a}", "learner", "use resources or accelerator"),
    ],
)
def test_a_fault_is_one_line_with_field_and_remedy(setting, field, reason):
    with pytest.raises(ConfigError) as caught:
        _placed(f"{AT}.{setting}")
    message = str(caught.value)
    assert message.startswith(f"{AT}.{field}: ")
    assert reason in message
    assert "\n" not in message
