"""Pictures show what the inspection holds."""

import numpy as np
import torch
from PIL import Image

from tats_ray.config.geometry import TokenGrid
from tats_ray.evaluation.inspection import Inspection
from tats_ray.tracking.pictures import save_pictures

GRID = TokenGrid(2, 2, 2)


def test_one_file_per_clip_with_the_visible_tokens_in_colour(tmp_path):
    pixels = torch.zeros(2, 3, 4, 16, 16)
    pixels[:, 0] = 1.0  # red everywhere
    inspection = Inspection(
        pixels=pixels,
        visible=torch.tensor([[0], [7]]),
        log_probs=torch.full((2, 8), 1 / 8).log(),
        speed=None,
        reconstruction=pixels,
        error=torch.rand(2, 8),
    )
    files = save_pictures(inspection, GRID, tmp_path / "pictures", step=7)
    assert [file.name for file in files] == [
        "step_00000007_clip_0.png", "step_00000007_clip_1.png",
    ]  # fmt: skip
    images = [np.asarray(Image.open(file).convert("RGB")).astype(int) for file in files]
    red = [(image[..., 0] > 200) & (image[..., 1] < 50) & (image[..., 2] < 50) for image in images]
    grey = [(np.abs(image - 128).max(axis=2) < 3).sum() for image in images]
    assert all(mask.sum() > 1000 for mask in red)
    assert all(count > 500 for count in grey)
    # Token 0 is in the first column of the picture, token 7 in the last: the red parts differ.
    assert (red[0] != red[1]).any()
