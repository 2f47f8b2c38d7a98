"""Tokens that differ most from the token before them in time, EVEREST's rule (Hwang et al. 2024),
with or without the camera's motion in the difference.

What this project decided of it is in docs/systems.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tats_ray.config.geometry import TokenGrid, visible_per_clip
from tats_ray.config.masking import MaskingSettings, Reads, TrainedBy
from tats_ray.masking.selection import draw_from_top

if TYPE_CHECKING:
    from torch import Tensor


class DifferenceSettings(MaskingSettings):
    compensate: bool = False
    """Whether the camera's motion is taken out of the difference."""
    candidates: float = Field(0.3, gt=0, le=1)
    """Share of the tokens, those with the largest difference, from which the visible ones are
    drawn."""

    def check(self, grid: TokenGrid, token_width: int) -> None:
        visible, candidates = visible_per_clip(grid.tokens, self.ratio), self.count(grid)
        if visible > candidates:
            raise ValueError(
                f"masking.candidates {self.candidates} leaves {candidates} tokens to draw "
                f"{visible} visible ones from: set masking.candidates={1 - self.ratio:.3g} or more"
            )

    def count(self, grid: TokenGrid) -> int:
        """Tokens that the visible ones are drawn from."""
        return round(grid.tokens * self.candidates)


class Difference:
    """Draws the visible tokens, all alike, from those of the clip that differ most."""

    Settings = DifferenceSettings
    reads: Reads = "frames"
    trained_by: TrainedBy = "nothing"

    def __init__(self, settings: DifferenceSettings, grid: TokenGrid) -> None:
        self.grid = grid
        self.compensate = settings.compensate
        self.candidates = settings.count(grid)
        self.visible = visible_per_clip(grid.tokens, settings.ratio)

    def count_visible(self) -> int:
        return self.visible

    def select(self, noise: Tensor, view: Tensor | None) -> Tensor:
        assert view is not None, "difference reads frames"
        change = token_change(view, self.grid, self.compensate)
        return draw_from_top(change, noise, self.candidates, self.visible)


def token_change(frames: Tensor, grid: TokenGrid, compensate: bool) -> Tensor:
    """Mean squared difference of each token's pixels to those of the token before it in time; the
    first slice is compared with the second.

    Args:
        frames: float32 [B, 3, T, H, W] in [0, 1].
        compensate: whether the frames before are moved by `camera_shift` first; pixels that come
            into view count as unchanged.

    Returns:
        float32 [B, N]; zeros where there is one slice only.
    """
    import torch
    from einops import reduce

    tubelet = frames.shape[2] // grid.time
    if grid.time == 1:
        return frames.new_zeros(len(frames), grid.tokens)
    flat = frames.transpose(1, 2)  # [B, T, 3, H, W]
    before = torch.cat([flat[:, tubelet : 2 * tubelet], flat[:, :-tubelet]], dim=1)
    pairs = (flat.flatten(0, 1), before.flatten(0, 1))
    change = _moved_difference(*pairs) if compensate else (pairs[0] - pairs[1]).square().mean(1)
    return reduce(
        change, "(b t u) (h p) (w q) -> b (t h w)", "mean",
        b=len(frames), t=grid.time, h=grid.rows, w=grid.columns,
    )  # fmt: skip


def _moved_difference(frames: Tensor, before: Tensor) -> Tensor:
    moved, inside = shift(before, camera_shift(frames.mean(dim=1), before.mean(dim=1)))
    return (frames - moved).square().mean(dim=1) * inside


_AGREES = 0.05  # grey levels in [0, 1] from which a pixel counts as rather not the same
_PEAKS = 3


def camera_shift(frames: Tensor, before: Tensor) -> Tensor:
    """How far the camera moved the picture, whole pixels (down, right): int64 [B, 2].

    The highest peak of phase correlation (Kuglin and Hines 1975) may be that of an object, so the
    three highest compete with no shift at all, and the one wins that explains most pixels: the mean
    of e^2 / (e^2 + .05^2) is lowest (Geman and McClure 1985), over pixels that both frames show.

    Args:
        frames, before: grey, float32 [B, H, W] in [0, 1].
    """
    import torch

    still = torch.zeros(len(frames), 1, 2, dtype=torch.int64, device=frames.device)
    candidates = torch.cat([still, _correlation_peaks(frames, before)], dim=1)
    costs = []
    for candidate in candidates.unbind(1):
        moved, inside = shift(before[:, None], candidate)
        error = (frames - moved[:, 0]).square()
        share = (error / (error + _AGREES**2) * inside).mean(dim=(1, 2))
        costs.append(share / inside.float().mean(dim=(1, 2)))
    best = torch.stack(costs, dim=1).argmin(dim=1)
    return candidates.gather(1, best[:, None, None].expand(-1, 1, 2))[:, 0]


def _correlation_peaks(frames: Tensor, before: Tensor) -> Tensor:
    """Shifts at the highest local maxima of the phase correlation, at most half a picture; int64
    [B, 3, 2]."""
    import torch
    from torch.nn.functional import max_pool2d

    height, width = frames.shape[1:]
    spectra = [
        torch.fft.rfft2(one - one.mean(dim=(1, 2), keepdim=True)) for one in (frames, before)
    ]
    cross = spectra[0] * spectra[1].conj()
    # Frequencies that a picture does not have would vote as loudly as all others.
    floor = 1e-6 * cross.abs().amax(dim=(1, 2), keepdim=True) + torch.finfo(frames.dtype).tiny
    likely = torch.fft.irfft2(cross / (cross.abs() + floor), s=(height, width))
    highest = max_pool2d(likely[:, None], 3, stride=1, padding=1)[:, 0]
    places = torch.where(likely == highest, likely, -1.0).flatten(1).topk(_PEAKS, dim=1).indices
    down, right = places // width, places % width
    down = torch.where(down > height // 2, down - height, down)
    right = torch.where(right > width // 2, right - width, right)
    return torch.stack([down, right], dim=2)


def shift(pictures: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Moves each picture by whole pixels: [B, C, H, W] and int64 [B, 2] (down, right) -> the moved
    pictures, whose edges repeat, and where they show pixels of the original, bool [B, H, W]."""
    import torch

    height, width = pictures.shape[2:]
    rows = torch.arange(height, device=pictures.device) - places[:, :1]
    columns = torch.arange(width, device=pictures.device) - places[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
    flat = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    index = flat.flatten(1)[:, None].expand(-1, pictures.shape[1], -1)
    return pictures.flatten(2).gather(2, index).view_as(pictures), inside
