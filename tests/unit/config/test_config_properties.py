"""What holds for every configuration: it comes back from its file as it was, and a mistake anywhere
in it is one line."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tats_ray.config import Config, config_from_dict, dump_config, load_config
from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import load_as, read_yaml
from tats_ray.config.masking import SYSTEMS, MaskingSettings, settings_class
from tats_ray.errors import ConfigError

NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
# What YAML could take for something else than a text.
TRICKY = [
    "1e-4", "1e3", "12", "0x1F", "1_000", "true", "off", "null", "~", "2024-01-01", "1:30", ".5",
    "-", "? a", "a: b", "a #b", "'", '"', "\\", "{x}", "[", "&a", "*a", "!!int 3", " lead",
    "trail ", "line\nbreak", "\r", "\x85", "\u2028", "\u2029", "\ufeff",
    "naïve 視頻", "\x07", "=", "<<", "",
]  # fmt: skip
TEXT = st.sampled_from(TRICKY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _number(kind: type, bounds: list[Any]) -> st.SearchStrategy:
    low = next((b.ge for b in bounds if isinstance(b, Ge)), None)
    above = next((b.gt for b in bounds if isinstance(b, Gt)), None)
    high = next((b.le for b in bounds if isinstance(b, Le)), None)
    below = next((b.lt for b in bounds if isinstance(b, Lt)), None)
    if kind is int:
        least = low if above is None else above + 1
        most = high if below is None else below - 1
        numbers = st.integers(least, most if most is not None else 10**6)
        step = next((b.multiple_of for b in bounds if isinstance(b, MultipleOf)), 1)
        return numbers.map(lambda n: n // step * step).filter(lambda n: least is None or n >= least)
    return st.floats(
        low if above is None else above, high if below is None else below,
        exclude_min=above is not None, exclude_max=below is not None, allow_nan=False,
        allow_infinity=False,
    )  # fmt: skip


def _values(annotation: Any, bounds: list[Any]) -> st.SearchStrategy:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(parts[0], [*bounds, *_flat(parts[1:])])
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(_values(part, bounds) for part in parts))
    if origin is list:
        least = next((b.min_length for b in bounds if isinstance(b, MinLen)), 0)
        most = next((b.max_length for b in bounds if isinstance(b, MaxLen)), 4)
        return st.lists(_values(parts[0], []), min_size=least, max_size=most)
    if origin is dict or _is_settings(annotation):
        return _mappings(annotation)
    if annotation in (int, float):
        return _number(annotation, bounds)
    plain = {type(None): st.none(), bool: st.booleans(), str: TEXT}
    return st.sampled_from(parts) if origin is Literal else plain[annotation]


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _mappings(annotation: Any) -> st.SearchStrategy:
    """Of a mapping with any keys, or of settings that may be left out as a whole."""
    if get_origin(annotation) is dict:
        return st.dictionaries(TEXT, _values(get_args(annotation)[1], []), max_size=2)
    fields = annotation.model_fields.items()
    values = {name: _values(field.annotation, _flat(field.metadata)) for name, field in fields}
    return st.fixed_dictionaries({}, optional=values)


def _flat(metadata: Iterable[Any]) -> list[Any]:
    return [part for item in metadata for part in getattr(item, "metadata", [item])]


def _fields(
    section: type[BaseModel], prefix: str = "", *, system: str = "tats"
) -> dict[str, st.SearchStrategy]:
    """Dotted key -> values that the field alone permits, under a masking system."""
    found: dict[str, st.SearchStrategy] = {}
    for name, field in section.model_fields.items():
        kind = field.annotation
        if _is_settings(kind):
            if kind is MaskingSettings:
                kind = settings_class({"system": system})
            found |= _fields(kind, f"{prefix}{name}.")
        elif f"{prefix}{name}" == "masking.system":
            found["masking.system"] = st.just(system)
        else:
            found[f"{prefix}{name}"] = _values(kind, _flat(field.metadata))
    return found | ({"run.name": NAME} if not prefix else {})


KINDS = {name: (Config, _fields(Config, system=name)) for name in SYSTEMS}
KINDS["finetuning"] = (FinetuneConfig, _fields(FinetuneConfig))


def _tree(values: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {"run": {"name": "x"}}
    for dotted, value in values.items():
        *sections, key = dotted.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    return tree


def test_every_field_is_drawn():
    assert len(KINDS["tats"][1]) > 110
    assert "data.augment.area" in KINDS["tube"][1]
    assert "train.layer_decay" in KINDS["finetuning"][1]
    for system, key in (("tats", "sampler.mlp"), ("adamae", "detach"), ("mgm", "rule")):
        assert f"masking.{key}" in KINDS[system][1]


@settings(max_examples=100, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data(), name=st.sampled_from(list(KINDS)))
def test_a_dumped_configuration_loads_as_it_was(tmp_path_factory, data, name):
    kind, fields = KINDS[name]
    chosen = data.draw(st.lists(st.sampled_from(sorted(fields)), max_size=8, unique=True))
    values = {} if kind is FinetuneConfig else {"masking.system": name}
    values |= {key: data.draw(fields[key], label=key) for key in chosen}
    try:
        config = kind.model_validate(_tree(values))
    except ValueError:
        assume(False)  # the sections do not fit each other
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_as(kind, file, []) == config
    assert dump_config(load_as(kind, file, [])) == dump_config(config)


@pytest.mark.parametrize("text", TRICKY)
def test_a_text_comes_back_as_it_was(tmp_path, text):
    for around in ("", "a", " "):
        config = config_from_dict(_tree({"tracking.uri": f"{around}{text}{around}"}))
        file = tmp_path / "dumped.yaml"
        file.write_text(dump_config(config), encoding="utf-8")
        assert load_config(file, []) == config


WORD = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=14)
PLACES = [
    (system, section)
    for system in SYSTEMS
    for section in sorted({key.rpartition(".")[0] for key in KINDS[system][1]})
]


KEYS = [(system, key) for system in SYSTEMS for key in KINDS[system][1]]
KEYS += [place for place in PLACES if place[1]]


@given(place=st.sampled_from(PLACES), word=WORD, value=TEXT)
def test_an_unknown_key_anywhere_is_one_line_that_names_it(place, word, value):
    system, section = place
    dotted = f"{section}.{word}".lstrip(".")
    assume(dotted not in KINDS[system][1] and (system, dotted) not in PLACES)
    with pytest.raises(ConfigError) as caught:
        config_from_dict(_tree({"masking.system": system, dotted: value}))
    message = str(caught.value)
    assert message.startswith(f"{dotted}: unknown key; ")
    assert "did you mean" in message or "known here: " in message
    assert "\n" not in message


# A value of any type in any place.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(TEXT | st.integers(), part, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(key=st.sampled_from(KEYS), value=ANYTHING)
def test_any_value_anywhere_is_taken_or_one_line(key, value):
    system, dotted = key
    try:
        config_from_dict(_tree({"masking.system": system, dotted: value}))
    except ConfigError as error:
        assert "\n" not in str(error)


# Pieces out of which YAML is made, and values that only its constructors choke on.
PIECES = st.sampled_from(
    ["run", "train", ": ", ":", "\n", "  ", "- ", "{", "}", "[", "]", ", ", "'", '"', "#", "&a ",
     "*a", "<<: ", "!!python/object:os.system ", "!!binary x", "!!timestamp ", "!x ", "|\n", ">\n",
     "? ", "%YAML 9.9\n", "---\n", "...\n", "2024-13-45", "2024-01-01T99:00:00", "0x_", "0b_", "._",
     "1" * 5000, "\t", "\x00", "\ufeff", "é", "\u2028", "name", "1e400", ".inf", ".nan",
     "-", "~"]
)  # fmt: skip


@settings(max_examples=200)
@given(pieces=st.lists(PIECES, max_size=12))
def test_no_file_and_no_override_escapes_as_another_error(tmp_path_factory, pieces):
    text = "".join(pieces)
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8")
    for arguments in ((file, []), (None, ["run.name=x", f"data.manifest={text}"])):
        try:
            load_config(*arguments)
        except ConfigError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("run:\n  seed: 2024-13-45\n", ":2: '2024-13-45' is not a valid timestamp"),
        ("run:\n  seed: !!bool maybe\n", ":2: 'maybe' is not a valid bool"),
        (f"run:\n  seed: 0x{'f' * 5000}\n", ":2: '0xf{78}' is not a valid int"),
        ("run:\n  name: a\n  name: b\n", r":3: key 'name' is given twice"),
        ("run: {name: a}\ntrain: {}\nrun: {seed: 1}\n", r":3: key 'run' is given twice"),
    ],
)
def test_twice_given_keys_and_odd_values_are_named_with_their_line(tmp_path, text, where):
    """YAML would quietly take the last."""
    file = tmp_path / "twice.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"twice\.yaml{where}"):
        load_config(file, [])


def test_files_of_other_systems_read_alike(tmp_path):
    """Byte order mark, line ends of Windows and of old Macs, an empty file, a merge key."""
    plain = "run: {name: näme}\ntrain:\n  steps: 5\n".replace("ä", "a")
    for content in (
        plain,
        "\ufeff" + plain,
        plain.replace("\n", "\r\n"),
        plain.replace("\n", "\r"),
    ):
        file = tmp_path / "a b ü.yaml"
        file.write_bytes(content.encode())
        assert load_config(file, []).train.steps == 5
    merged = "run: {name: a}\ntrain: &t {steps: 5}\nother: 1\n".replace("other: 1\n", "")
    file.write_text(merged + "rl:\n  <<: {lr: 0.5}\n  lr: 0.25\n")
    assert load_config(file, []).rl.lr == 0.25
    file.write_text("")
    assert read_yaml(file) == {}
    with pytest.raises(ConfigError, match="run: is required"):
        load_config(file, [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.base_lr=.inf", "train.base_lr: input should be a finite number, got inf"),
        ("train.betas=[0.9, 1.0]", "train.betas.1: input should be less than 1, got 1.0"),
        ("run.name=2024-13-45", "run.name: '2024-13-45' is not a YAML value"),
        ("run.name=a/../../b", "run.name: string should match pattern"),
        ("run.name=..", "run.name: string should match pattern"),
        ("run.name=/etc/x", "run.name: string should match pattern"),
    ],
)
def test_what_would_fail_later_or_lead_elsewhere_is_refused(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["run.name=x", override])
    assert str(caught.value).startswith(message)


def test_a_text_that_looks_like_a_number_stays_one():
    config = load_config(None, ["run.name='1e3'", "tracking.experiment='1e-4'"])
    again = config_from_dict(yaml.safe_load(dump_config(config)))
    assert (again.run.name, again.tracking.experiment) == ("1e3", "1e-4")
