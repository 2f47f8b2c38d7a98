"""Crops keep to the frame, keep the aspect, and move maps as they move pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tats_ray.config.data import AugmentSettings
from tats_ray.data.augment import MULTI_SCALES, augment_clips, crop_boxes, crop_motion, crop_resize

CROPS = ["multi_scale", "random_resized", "center", "full"]


@given(crop=st.sampled_from(CROPS), aspect=st.floats(0.3, 3.0), first=st.integers(0, 10**9))
@settings(max_examples=60)
def test_boxes_lie_in_the_frame(crop, aspect, first):
    boxes = crop_boxes(AugmentSettings(crop=crop), np.full(16, aspect), seed=1, first=first)
    left, top, right, bottom, flip = boxes.T
    assert (left >= -1e-6).all() and (top >= -1e-6).all()
    assert (right <= 1 + 1e-6).all() and (bottom <= 1 + 1e-6).all()
    assert (right > left).all() and (bottom > top).all()
    assert not flip.any()


def test_center_crop_is_square_in_the_video():
    (box,) = crop_boxes(AugmentSettings(crop="center"), np.array([16 / 9]), seed=0, first=0)
    width, height = (box[2] - box[0]) * 16 / 9, box[3] - box[1]
    assert width == pytest.approx(height)
    assert box[0] == pytest.approx(1 - box[2])


def test_multi_scale_sides_are_the_published_ones():
    boxes = crop_boxes(AugmentSettings(crop="multi_scale"), np.full(4000, 4 / 3), seed=0, first=0)
    widths = (boxes[:, 2] - boxes[:, 0]) * 4 / 3
    heights = boxes[:, 3] - boxes[:, 1]
    found = {(round(float(w), 3), round(float(h), 3)) for w, h in zip(widths, heights, strict=True)}
    steps = range(len(MULTI_SCALES))
    wanted = {
        (round(MULTI_SCALES[i], 3), round(MULTI_SCALES[j], 3))
        for i in steps for j in steps if abs(i - j) <= 1
    }  # fmt: skip
    assert found == wanted


def test_random_resized_area_and_aspect_stay_in_their_ranges():
    section = AugmentSettings(crop="random_resized", area=[0.5, 0.6], aspect=[0.8, 1.25])
    boxes = crop_boxes(section, np.ones(2000), seed=0, first=0)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (width * height <= 0.6 + 1e-5).all()
    assert (width * height >= 0.5 - 1e-5).all()
    assert ((width / height >= 0.79) & (width / height <= 1.26)).all()


def test_flip_share_is_the_setting():
    boxes = crop_boxes(AugmentSettings(flip=0.3), np.ones(5000), seed=0, first=0)
    assert boxes[:, 4].mean() == pytest.approx(0.3, abs=0.02)


def test_boxes_belong_to_clips_and_not_to_batches():
    section = AugmentSettings(crop="random_resized", flip=0.5)
    whole = crop_boxes(section, np.full(12, 1.5), seed=3, first=100)
    part = crop_boxes(section, np.full(5, 1.5), seed=3, first=104)
    assert np.array_equal(whole[4:9], part)


def test_full_frame_at_the_same_size_changes_nothing():
    clips = torch.randint(0, 256, (2, 4, 16, 16, 3), dtype=torch.uint8)
    boxes = torch.from_numpy(crop_boxes(AugmentSettings(crop="full"), np.ones(2), seed=0, first=0))
    pixels = augment_clips(clips, boxes, 16)
    assert torch.allclose(pixels, clips.permute(0, 4, 1, 2, 3).float() / 255, atol=1e-5)


def test_an_enlarged_crop_equals_slicing_and_interpolating():
    """A pixel-aligned box: PyTorch's own bilinear resize is the reference, away from the edges,
    where a slice knows nothing of the pixels beside it."""
    maps = torch.rand(1, 3, 24, 32)
    box = torch.tensor([[8 / 32, 6 / 24, 24 / 32, 18 / 24, 0.0]])
    ours = crop_resize(maps, box, 20)
    wide = F.interpolate(maps[:, :, 6:18, 8:24], (20, 20), mode="bilinear", align_corners=False)
    assert torch.allclose(ours[..., 1:-1, 1:-1], wide[..., 1:-1, 1:-1], atol=1e-5)


def _pil(maps, box, size):
    """Pillow's antialiased resize of a box, picture by picture, in float."""
    height, width = maps.shape[2:]
    left, top, right, bottom, flip = box.tolist()
    corners = (left * width, top * height, right * width, bottom * height)
    pictures = [
        np.asarray(
            Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR, corners)
        )
        for picture in maps[0].numpy()
    ]
    shown = torch.from_numpy(np.stack(pictures))[None]
    return shown.flip(3) if flip else shown


@given(left=st.floats(0, 0.4), top=st.floats(0, 0.4), right=st.floats(0.6, 1),
       bottom=st.floats(0.6, 1), flip=st.sampled_from([0.0, 1.0]),
       size=st.sampled_from([5, 8, 13]))  # fmt: skip
@settings(max_examples=40)
def test_a_reduced_crop_is_filtered_as_pillow_does(left, top, right, bottom, flip, size):
    maps = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[left, top, right, bottom, flip]])
    wanted = _pil(maps, box[0], size)
    assert torch.allclose(crop_resize(maps, box, size), wanted, atol=2e-5)


def test_a_reduced_frame_is_filtered_as_pytorch_does():
    maps = torch.rand(2, 3, 96, 51)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]] * 2)
    wanted = F.interpolate(maps, (32, 32), mode="bilinear", antialias=True)
    assert torch.allclose(crop_resize(maps, boxes, 32), wanted, atol=1e-5)


def test_stripes_finer_than_the_picture_turn_grey():
    """Every third row is white. Bilinear sampling alone makes coarse stripes of them."""
    clips = torch.zeros(1, 2, 720, 40, 3, dtype=torch.uint8)
    clips[:, :, ::3] = 255
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]])
    pixels = augment_clips(clips, box, 224)[..., 2:-2, :]
    assert pixels.std() < 0.03
    assert pixels.mean() == pytest.approx(1 / 3, abs=0.01)


def test_a_clip_is_the_same_in_every_batch_and_filtered_only_where_it_is_reduced():
    maps = torch.rand(3, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor(
        [[0.0, 0.0, 1.0, 1.0, 0.0], [0.1, 0.2, 0.8, 0.9, 1.0], [0.0, 0.1, 0.9, 0.4, 0.0]]
    )
    together = crop_resize(maps, boxes, 30)
    for row in range(3):
        alone = crop_resize(maps[row : row + 1], boxes[row : row + 1], 30)
        assert torch.equal(together[row], alone[0])
    # Its box is 28 x 28 of 40 x 40 pixels: enlarged to 30, as by PyTorch's plain sampling.
    x, y = ((torch.arange(30) + 0.5) / 30 * 0.7 + start for start in (0.1, 0.2))
    grid = torch.stack([x.flip(0).expand(30, 30), y[:, None].expand(30, 30)], dim=2)[None] * 2 - 1
    plain = F.grid_sample(maps[1:2], grid, padding_mode="border", align_corners=False)
    assert torch.allclose(together[1:2], plain, atol=1e-5)


def test_flip_mirrors():
    maps = torch.rand(1, 2, 12, 12)
    plain = crop_resize(maps, torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]]), 12)
    flipped = crop_resize(maps, torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]]), 12)
    assert torch.allclose(flipped, plain.flip(-1), atol=1e-5)


def test_a_circle_stored_squashed_comes_back_round():
    """Frames are stored square, the video is 2:1: the centre crop must undo the squash."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    # A disk of radius .3 heights in the middle of a 2:1 frame, as stored.
    disk = (((x / 64 - 0.5) * 2) ** 2 + (y / 64 - 0.5) ** 2 < 0.3**2).float()[None, None]
    box = torch.from_numpy(
        crop_boxes(AugmentSettings(crop="center"), np.array([2.0]), seed=0, first=0)
    )
    seen = crop_resize(disk, box, 64)[0, 0] > 0.5
    across, down = seen.any(0).sum().item(), seen.any(1).sum().item()
    assert abs(across - down) <= 2
    assert across == pytest.approx(0.6 * 64, abs=2)


def test_motion_follows_crop_resize_and_flip():
    """A pattern shifted by d in the frame is shifted by `crop_motion`'s d in the crop."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")

    def frame(shift_x, shift_y):
        spot = ((columns - 40 - shift_x) ** 2 + (rows - 30 - shift_y) ** 2) / (2 * 5.0**2)
        return (-spot).exp()[None, None]

    box = torch.tensor([[0.2, 0.1, 0.8, 0.9, 0.0]])
    for flip in (0.0, 1.0):
        box[0, 4] = flip
        shift = (6.0, 4.0)
        places = [_middle(crop_resize(frame(*by), box, 128)[0, 0]) for by in ((0, 0), shift)]
        seen = places[1] - places[0]
        motion = torch.tensor([shift[0] / 96, shift[1] / 64]).expand(1, 1, 8, 8, 2)
        told = crop_motion(motion, box, 4, 128)
        assert torch.allclose(told, seen.expand_as(told), atol=0.1)


def test_motion_is_read_at_the_place_of_the_crop():
    motion = torch.zeros(1, 1, 10, 10, 2)
    motion[0, 0, 2, 7] = torch.tensor([0.1, -0.2])  # of the frame's point (.75, .25)
    box = torch.tensor([[0.5, 0.0, 1.0, 0.5, 0.0]])
    told = crop_motion(motion, box, 5, 50)[0, 0]
    assert torch.allclose(told[2, 2], torch.tensor([0.1 * 50 / 0.5, -0.2 * 50 / 0.5]))
    assert told.abs().sum() == pytest.approx(told[2, 2].abs().sum().item())
    box[0, 4] = 1.0  # the middle stays, the direction turns
    assert torch.allclose(crop_motion(motion, box, 5, 50)[0, 0, 2, 2], torch.tensor([-10.0, -20.0]))


def _middle(image):
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in image.shape), indexing="ij")
    return torch.stack([(image * columns).sum(), (image * rows).sum()]) / image.sum()
