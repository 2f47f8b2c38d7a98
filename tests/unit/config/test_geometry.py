"""Visible counts as the systems' own code has them (AdaMAE and VideoMAE)."""

import pytest

from tats_ray.config.geometry import TokenGrid, visible_per_clip, visible_per_slice
from tats_ray.config.masking import system_class

PUBLISHED = TokenGrid(8, 14, 14)  # 16 x 224 x 224 with tubelets of 2 x 16 x 16


def _visible(name, ratio):
    system = system_class(name)
    return system(system.Settings(system=name, ratio=ratio), PUBLISHED).count_visible()


@pytest.mark.parametrize(
    ("ratio", "visible"), [(0.75, 392), (0.8, 313), (0.85, 235), (0.9, 156), (0.95, 78), (0.98, 31)]
)
def test_adamae_counts(ratio, visible):
    assert visible_per_clip(PUBLISHED.tokens, ratio) == visible
    assert {_visible(name, ratio) for name in ("tats", "adamae", "random")} == {visible}


@pytest.mark.parametrize(
    ("ratio", "visible"), [(0.75, 49), (0.8, 40), (0.85, 30), (0.9, 20), (0.95, 10)]
)
def test_tube_counts_per_slice(ratio, visible):
    assert visible_per_slice(PUBLISHED.per_slice, ratio) == visible
    assert {_visible(name, ratio) for name in ("tube", "mgm", "trackmae")} == {8 * visible}


def test_frame_masking_shows_one_of_eight_slices():
    assert _visible("frame", 0.875) == 196
