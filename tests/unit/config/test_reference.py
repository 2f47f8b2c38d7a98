"""docs/settings.md says what the settings and the recipes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tats_ray.config import config_from_dict
from tats_ray.config.load import flatten
from tats_ray.config.masking import SYSTEMS
from tats_ray.config.reference import reference_page

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_command_writes():
    assert reference_page(ROOT) == PAGE, "run python -m tats_ray.config.reference"


def test_every_setting_has_a_meaning():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and "configs/" not in line]
    assert len(rows) > 150
    assert [row for row in rows if row.endswith("|  |")] == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_setting_is_on_the_page(system):
    config = config_from_dict({"run": {"name": "x"}, "masking": {"system": system}})
    for dotted in flatten(config.model_dump()):
        assert f"| `{dotted.partition('.')[2]}` |" in PAGE, dotted


def test_the_page_lists_every_recipe():
    for path in [*ROOT.glob("configs/recipes/*.yaml"), *ROOT.glob("configs/finetune/*.yaml")]:
        assert f"| `{path.relative_to(ROOT)}` |" in PAGE
