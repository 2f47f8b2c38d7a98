"""A text of a few bytes or lines may stand for billions of values; it is refused for what it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def _powers(first: str, further: str) -> str:
    """Eleven values, each of which holds the one before it nine times."""
    rows = [further.format(i, ", ".join([f"*a{i - 1}"] * 9)) for i in range(1, 12)]
    return "\n".join([first, *rows])


BOMBS = {
    "alias": _powers("a0: &a0 [x]", "a{0}: &a{0} [{1}]"),
    "merge": _powers("a0: &a0 {x: 1}", "a{0}: &a{0}\n  <<: [{1}]"),
    "value": "[" + _powers("&a0 [x],", "&a{0} [{1}],").replace("\n", " ") + "]",
    "itself": "run: &a {name: *a}",
    "itself by merge": "run: &a\n  <<: *a\n",
    "deep": "run: " + "[" * 3000,
    "deep blocks": "\n".join(" " * i + "a:" for i in range(3000)),
    "wide": "a: 1\n" * 100_000,
}
_LOADS = """
import resource, sys
from tats_ray.config import load_config
from tats_ray.errors import ConfigError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for arguments in ((sys.argv[1], []), (None, ["run.name=" + open(sys.argv[1]).read()])):
    try:
        load_config(*arguments)
    except ConfigError as error:
        print(str(error)[:300])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("kind", BOMBS)
def test_a_text_that_stands_for_far_more_than_it_is_costs_nothing(tmp_path, kind):
    file = tmp_path / "bomb.yaml"
    file.write_text(BOMBS[kind])
    child = [sys.executable, "-c", _LOADS, str(file)]
    shown = subprocess.run(child, capture_output=True, text=True, cwd=ROOT, check=True)
    in_file, in_value, mebibytes = shown.stdout.splitlines()
    assert "bomb.yaml" in in_file
    assert in_value.startswith("run.name: ")
    assert int(mebibytes) < 200
