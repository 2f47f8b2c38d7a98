"""Visible counts as the systems' own code has them (AdaMAE and VideoMAE)."""

import pytest

from tats_ray.config.geometry import TokenGrid, visible_per_clip, visible_per_slice, visible_tokens

PUBLISHED = TokenGrid(8, 14, 14)  # 16 x 224 x 224 with tubelets of 2 x 16 x 16


@pytest.mark.parametrize(
    ("ratio", "visible"), [(0.75, 392), (0.8, 313), (0.85, 235), (0.9, 156), (0.95, 78), (0.98, 31)]
)
def test_adamae_counts(ratio, visible):
    assert visible_per_clip(PUBLISHED.tokens, ratio) == visible
    assert visible_tokens("tats", PUBLISHED, ratio) == visible


@pytest.mark.parametrize(
    ("ratio", "visible"), [(0.75, 49), (0.8, 40), (0.85, 30), (0.9, 20), (0.95, 10)]
)
def test_tube_counts_per_slice(ratio, visible):
    assert visible_per_slice(PUBLISHED.per_slice, ratio) == visible
    assert visible_tokens("tube", PUBLISHED, ratio) == 8 * visible
