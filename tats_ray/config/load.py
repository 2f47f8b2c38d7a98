"""YAML file + dotted overrides -> validated `Config`; every fault is one line, exit code 2."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tats_ray.config.masking import MaskingSettings, settings_class, switch_system
from tats_ray.config.settings import Settings
from tats_ray.config.shipped import config_path
from tats_ray.config.tree import Config
from tats_ray.errors import ConfigError

Kind = TypeVar("Kind", bound=Settings)

# Former dotted name -> what to write instead. A former section is one entry.
RENAMED = {
    "masking.adamae": "masking.heads, .dropout, .coefficient and .detach (masking.system=adamae)",
    "masking.mgm": "masking.rule, .smoothing and .still_pixels (masking.system=mgm)",
    "masking.trackmae": "masking.motion_ratio (masking.system=trackmae)",
    "rl.env_runners": "rl.rollout_workers",
    "rl.max_runner_restarts": "rl.max_worker_restarts",
    "rl.credit": "rl.credit_level (per_token is now token)",
    "rl.action_set": "rl.log_prob_over",
    "cluster.env_runner_cpus": "cluster.rollout_worker_cpus",
    "data.canvas_height": "data.stored_height",
    "data.canvas_width": "data.stored_width",
}

# Former setting -> what it is now fixed at.
FIXED = {
    "cluster.env_runner_gpus": "an even share of what the Train workers leave",
    "cluster.learner_gpus": "an even share of what the Train workers leave",
    "cluster.rollout_worker_gpus": "an even share of what the Train workers leave",
    "data.synthetic.fps": "16",
    "data.synthetic.object_contrast": "0.22",
    "data.synthetic.root": "<run.output_dir>/synthetic/<digest of data.synthetic>",
    "data.synthetic.seed": "0",
    "data.synthetic.static_objects": "as many as data.synthetic.moving_objects",
    "masking.sampler.blocks": "1",
    "model.feature_target.statistics": "ImageNet's",
    "model.feature_target.weight": "1; set model.target.weight and model.motion_target.weight",
    "model.mlp_ratio": "4",
    "rl.gradient_clip": "1",
    "rl.log_ratio_limit": "5",
    "rl.value_coefficient": "0.5",
    "rl.weight_decay": "0.05",
    "tracking.picture_clips": "4",
    "train.publish_interval": "1",
}


_FILE_BYTES = 1 << 18
_DEPTH = 50
_VALUES = 20_000  # with every alias written out; a study of a thousand arms has fewer


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads 1e-4 as a number, as YAML 1.2 does."""

    _depth = 0

    def get_single_node(self) -> yaml.Node | None:
        """The document; a few lines of aliases of aliases can mean billions of values."""
        node = super().get_single_node()
        if node is not None and _count_values(node, {}) > _VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases stand for more than {_VALUES:,} values", node.start_mark
            )
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A value; nesting costs time with the square of its depth, and then Python's stack."""
        self._depth += 1
        if self._depth > _DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "is nested too deeply", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """YAML's own constructors answer a date without such a month, and the like, with errors of
        many types; here it is one, with its line."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # Python reads a hexadecimal number of any length, but does not print it
            return value
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            kind = node.tag.rpartition(":")[2]
            value = node.value if isinstance(node.value, str) else error
            raise yaml.constructor.ConstructorError(
                None, None, f"'{str(value)[:80]}' is not a valid {kind}", node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A key that is given twice is an error: the first value would be lost."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _count_values(node: yaml.Node, counted: dict[yaml.Node, int]) -> int:
    """Values of a document with aliases written out; each node is looked at once."""
    if node not in counted:
        counted[node] = _VALUES  # what holds itself is endless
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        counted[node] = 1 + sum(_count_values(part, counted) for part in parts)
    return counted[node]


_UNICODE_BREAK = re.compile("[\x85\u2028\u2029]")


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_Loader` would read as numbers, and escapes Unicode's line breaks."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Raw, as SafeDumper writes it, NEL would be read as a plain newline.
        style = '"' if _UNICODE_BREAK.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)
_MERGE = "tag:yaml.org,2002:merge"
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )


def load_config(path: str | Path | None, overrides: list[str]) -> Config:
    """The configuration of a pre-training run, as `load_as`."""
    return load_as(Config, path, overrides)


def load_as(kind: type[Kind], path: str | Path | None, overrides: list[str]) -> Kind:
    """Reads a file, or a shipped one by its name, applies `a.b=value` overrides in order and
    validates the result.

    Raises:
        ConfigError: one line naming the file or field and the remedy.
    """
    tree = read_yaml(config_path(path)) if path is not None else {}
    for override in overrides:
        apply_override(tree, override)
    return validate_as(kind, tree)


def config_from_dict(tree: dict[str, Any]) -> Config:
    """The configuration of a pre-training run, as `validate_as`."""
    return validate_as(Config, tree)


def validate_as(kind: type[Kind], tree: dict[str, Any]) -> Kind:
    """Validates a plain mapping, as `model_dump` gives it back.

    Raises:
        ConfigError: one line naming the field and the remedy.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_one_line(kind, tree, error)) from None


def dump_config(config: Settings) -> str:
    """The resolved configuration as YAML, every field written out."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a plain mapping.

    Raises:
        ConfigError: names the file, and the line where there is one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
        if len(content) > _FILE_BYTES:
            raise ConfigError(f"{path}: is larger than {_FILE_BYTES:,} bytes; check --config")
        tree = yaml.load(content.decode("utf-8-sig"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check --config") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{path}{line}: {problem}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}:1: must be a mapping of sections, such as 'run:'")
    return tree


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Sets what `a.b=value` says in a plain mapping, in place.

    Another `masking.system` keeps the settings that all systems have and drops those of the former
    system; overrides behind it add the new one's.

    Raises:
        ConfigError: names the override.
    """
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"override '{override}' must have the form section.key=value")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError(f"{dotted}: {text[:200]!r} is not a YAML value") from None
    *sections, key = dotted.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{dotted}: '{section}' is a value, not a section")
    if dotted == "masking.system":
        switch_system(node, value)
    else:
        node[key] = value


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections -> dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _one_line(kind: type[Settings], tree: dict[str, Any], error: ValidationError) -> str:
    """The first fault: `field: what is wrong; remedy`."""
    faults = error.errors()
    # A misspelt key also shows as a missing one: name the misspelling.
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    # Pydantic also names the form of a setting that has several, such as (number).
    parts = [str(part) for part in fault["loc"] if not str(part).startswith("(")]
    field = ".".join(parts) or "config"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if field in RENAMED:
        return f"{field}: has been renamed; use {RENAMED[field]}"
    if field in FIXED:
        return f"{field}: is now fixed at {FIXED[field]}; leave it out"
    if fault["type"] == "extra_forbidden":
        return f"{field}: unknown key{_suggestion(kind, tree, parts)}"
    if fault["type"] == "missing":
        return f"{field}: is required; set it in the file or as {field}=..."
    if fault["type"] == "value_error":
        return message if field == "config" else f"{field}: {message}"
    return f"{field}: {message[0].lower()}{message[1:]}, got {fault['input']!r}"


def _suggestion(kind: type[Settings], tree: dict[str, Any], parts: list[str]) -> str:
    section: Any = kind
    for part in parts[:-1]:
        field = section.model_fields.get(part)
        section = field.annotation if field else None
        if section is MaskingSettings:
            section = settings_class(tree[part])
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return ""
    names = list(section.model_fields)
    close = difflib.get_close_matches(parts[-1], names, n=1)
    if close:
        return f"; did you mean {'.'.join([*parts[:-1], close[0]])}?"
    return f"; known here: {', '.join(names)}"
