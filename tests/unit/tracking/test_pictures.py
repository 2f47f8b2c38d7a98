"""Pictures show what the inspection holds, each pixel in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tats_ray.evaluation.held_out import Enrichment, load_held_out
from tats_ray.evaluation.inspection import Inspection, Inspector
from tats_ray.tracking.panels import (
    HIDDEN,
    MOVING,
    STATIC,
    Look,
    Scale,
    border,
    cell_pixels,
    clip_panels,
    coloured,
    resized,
)
from tats_ray.tracking.pictures import caption, notes, save_pictures, slices_sheet
from tats_ray.tracking.sheet import Sheet, draw_sheet
from tats_ray.training.checkpoint import RunState
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import tiny_config

CONFIG = tiny_config()  # 4 slices of 2 x 2 tokens of 2 x 16 x 16 pixels
RED = (255, 0, 0)


def _inspection(**changes):
    pixels = torch.zeros(2, 3, 8, 32, 32)
    pixels[:, 0] = 1.0  # red everywhere
    given = {
        "pixels": pixels,
        "visible": torch.tensor([[0], [15]]),
        "log_probs": torch.full((2, 16), 1 / 16).log(),
        "speed": None,
        "reconstruction": pixels,
        "error": torch.rand(2, 16) + 0.1,
    }
    return Inspection(**(given | changes))


def _panels(inspection, clip=0, **look):
    return {panel.kind: panel for panel in clip_panels(inspection, clip, CONFIG, Look(**look))}


def _is(images, colour):
    return (images == np.array(colour, dtype=np.uint8)).all(axis=-1)


def test_one_file_per_clip_with_the_visible_tokens_in_colour(tmp_path):
    files = save_pictures(_inspection(), CONFIG, tmp_path / "pictures", step=7)
    assert [file.name for file in files] == [
        "step_00000007_clip_0.png", "step_00000007_clip_1.png",
    ]  # fmt: skip
    red = [_is(np.asarray(Image.open(file)), RED) for file in files]
    # Two rows of four whole images, and one token; lines between tokens take a pixel each.
    assert [mask.sum() for mask in red] == [8 * 127**2 + 64 * 64, 8 * 127**2 + 63 * 63]


@pytest.mark.parametrize(
    ("size", "patch", "shrunk", "cell"),
    [(32, 16, True, 64), (64, 16, False, 32), (112, 16, True, 16), (224, 16, False, 16),
     (224, 16, True, 8), (512, 16, True, 4), (224, 14, True, 7), (48, 8, False, 24),
     (336, 7, True, 7)],
)  # fmt: skip
def test_images_have_at_least_112_pixels(size, patch, shrunk, cell):
    assert cell_pixels(size, patch, shrunk) == cell
    assert cell * (size // patch) >= 112


def test_small_frames_are_repeated_and_large_ones_averaged():
    small = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    assert np.array_equal(resized(small, 6)[0, ::3, ::3], small[0])
    assert np.array_equal(resized(resized(small, 6), 2), small)
    checks = np.indices((1, 4, 4)).sum(axis=0)[..., None] % 2.0
    assert (resized(checks, 2) == 0.5).all()


def test_only_visible_tokens_are_shown_and_their_error_is_hatched():
    panels = _panels(_inspection())
    visible, error = panels["visible"].images, panels["error"].images
    assert visible.shape == error.shape == (4, 128, 128, 3)
    shown = _is(visible, RED)
    assert shown[0, :64, :64].all() and shown.sum() == 64 * 64
    assert _is(visible, (HIDDEN,) * 3).sum() == 4 * 128**2 - 64 * 64  # with grey lines
    # Hatching has greys only; the colour map of errors has none between its ends.
    grey = (error.max(axis=-1) == error.min(axis=-1)) & (error.max(axis=-1) > 50)
    assert grey[0, :63, :63].all() and not grey[1].any()
    assert {tuple(colour) for colour in error[0, :60, :60].reshape(-1, 3)} == {
        (110,) * 3, (225,) * 3,
    }  # fmt: skip


def test_maps_have_the_colour_of_their_value_and_a_grid():
    values = torch.arange(16.0)[None]
    panel = _panels(_inspection(error=None, speed=values.expand(2, -1)))["motion"]
    assert panel.scale == Scale("magma", 15.0)
    for token, value in enumerate(values[0].tolist()):
        slice_, row, column = np.unravel_index(token, (4, 2, 2))
        cell = panel.images[slice_, 64 * row + 1 : 64 * row + 64, 64 * column + 1 :][:, :63]
        assert _is(cell, coloured(np.array([value]), panel.scale)).all()
    assert not _is(panel.images[:, 64], coloured(np.array([0.0]), panel.scale)).any()
    wider = _panels(_inspection(error=None), tops={"sampler": 4.0})["sampler"]
    assert wider.scale.top == 4.0
    assert _is(wider.images[0, 1, 1], coloured(np.array([1.0]), wider.scale))


def test_the_border_lies_on_the_mask_and_touches_its_outside():
    mask = np.zeros((1, 8, 8), dtype=bool)
    mask[0, 2:6, 1:5] = True
    mask[0, 5:, 6:] = True  # reaches the corner of the image: no line along the edge
    wanted = mask.copy()
    wanted[0, 3:5, 2:4] = False
    wanted[0, 6:, 7:] = False
    assert np.array_equal(border(mask), wanted)


def test_outlines_follow_the_true_objects_of_the_shown_frames(synthetic):
    held_out = load_held_out(CONFIG, str(synthetic.held_out), 3)
    state = RunState(MAETrainer(CONFIG, torch.device("cpu")).state(), None)
    config = tiny_config("masking.system=random")
    inspection = Inspector(config, state).inspect(held_out)
    for every, step in ((False, 2), (True, 1)):
        images = _panels(inspection, 1, every_frame=every)["visible"].images
        objects = held_out.objects[1, :, ::step].numpy().repeat(4, axis=2).repeat(4, axis=3)
        moving, static = border(objects[0]), border(objects[1])
        assert moving.any() and static.any()
        assert np.array_equal(_is(images, STATIC), static)
        assert np.array_equal(_is(images, MOVING), moving & ~static)


def test_the_caption_tells_step_system_ratio_and_enrichment():
    known = _inspection(enrichment=(Enrichment(1.5, 0.25), Enrichment(2.0, float("nan"))))
    assert caption(CONFIG, 9, known, 0) == (
        "step 9 · tats · 93.8% hidden (1 of 16 tokens visible) · enrichment: moving objects 1.50, "
        "static distractors 0.25"
    )
    assert caption(CONFIG, 9, known, 1).endswith("enrichment: moving objects 2.00")
    assert "enrichment" not in caption(CONFIG, 9, _inspection(), 0)


def test_notes_tell_of_what_is_shown_only():
    assert "true mean and deviation" in notes(CONFIG, _inspection())[0]
    plain = tiny_config("model.target.normalize=none")
    assert "deviation" not in notes(plain, _inspection())[0]
    assert notes(CONFIG, _inspection(reconstruction=None, error=None)) == []
    outlined = _inspection(objects=torch.zeros(2, 2, 8, 32, 32, dtype=torch.bool))
    assert "green around moving" in notes(CONFIG, outlined)[0]


def _starts(sheet):
    """Left and upper ends of the red images in a sheet."""
    red = _is(draw_sheet(sheet), RED)
    return [
        np.flatnonzero(np.diff(line, prepend=False) & line) for line in (red.any(0), red.any(1))
    ]


def test_colour_bars_shift_no_column():
    image = np.full((20, 20, 3), RED, dtype=np.uint8)
    plain = Sheet("t", ["a", "b"], ["x", "y"], [[image, image], [image, image]])
    barred = Sheet("t", ["a", "b"], ["x", "y"], [[image, image], [image, image]],
                   line_scales=[None, Scale("Greys", 2.0)])  # fmt: skip
    (columns, lines), (same, still) = _starts(plain), _starts(barred)
    assert np.array_equal(columns, same) and np.array_equal(lines, still)
    assert np.diff(columns).tolist() == [24] and np.diff(lines).tolist() == [24]
    assert draw_sheet(barred).shape[1] > draw_sheet(plain).shape[1]


@pytest.mark.parametrize("title", ["", "a" * 500, "word " * 90, "$x$ <b>\n\u202e\udcff 視頻"])
def test_any_title_leaves_the_images_as_they_are(title):
    image = np.full((64, 64, 3), RED, dtype=np.uint8)
    drawn = draw_sheet(Sheet(title, [title], [], [[image]], [title]))
    assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    assert drawn.shape[1] == 84
    assert _is(drawn, RED).sum() == 64 * 64


def test_a_row_without_scale_and_an_empty_place_stay_empty():
    panels = clip_panels(_inspection(error=None, log_probs=None), 0, CONFIG, Look())
    sheet = slices_sheet("t", panels, [])
    assert list(sheet.line_scales) == [None] * 3
    image = np.full((20, 20, 3), RED, dtype=np.uint8)
    assert _is(draw_sheet(Sheet("t", [], [], [[None, image]])), RED).sum() == 400
