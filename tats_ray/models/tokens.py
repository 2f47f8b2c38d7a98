"""Tokens of a clip: patches, positions, selection by index, targets."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor

from tats_ray.config.geometry import TokenGrid, cells_per_side
from tats_ray.config.model import TargetSettings

IMAGE_MEAN = (0.485, 0.456, 0.406)  # ImageNet statistics, as VideoMAE and AdaMAE
IMAGE_STD = (0.229, 0.224, 0.225)
MOTION_VALUES = 8  # of a token's motion target: (x, y) of 2 x 2 points


def patchify(pixels: Tensor, tubelet: int, patch: int) -> Tensor:
    """Cuts clips float [B, 3, T, H, W] into tubelets, frame-major: [B, N, V, 3] with
    V = tubelet * patch * patch values per channel."""
    return rearrange(
        pixels, "b c (t u) (h p) (w q) -> b (t h w) (u p q) c", u=tubelet, p=patch, q=patch
    )


def unpatchify(patches: Tensor, grid: TokenGrid, tubelet: int, patch: int) -> Tensor:
    """Inverse of `patchify`: [B, N, V, 3] -> [B, 3, T, H, W]."""
    return rearrange(
        patches,
        "b (t h w) (u p q) c -> b c (t u) (h p) (w q)",
        t=grid.time, h=grid.rows, w=grid.columns, u=tubelet, p=patch, q=patch,
    )  # fmt: skip


def standardize(patches: Tensor) -> Tensor:
    """ImageNet standardisation of the last (colour) axis."""
    mean = torch.tensor(IMAGE_MEAN, device=patches.device, dtype=patches.dtype)
    std = torch.tensor(IMAGE_STD, device=patches.device, dtype=patches.dtype)
    return (patches - mean) / std


def pixel_view(patches: Tensor, grid: TokenGrid, tubelet: int, patch: int) -> Tensor:
    """What a sampler sees that reads pixels: each token's colours, averaged over its cells, their
    change from the time slice before and to the one behind.

    Patches float [B, N, V, 3] in [0, 1] -> float [B, N, `pixel_values`].
    """
    cells = cells_per_side(patch)
    size = patch // cells
    means = reduce(
        patches, "b (t s) (u i p j q) c -> b t s (u i j) c", "mean",
        t=grid.time, u=tubelet, i=cells, j=cells, p=size, q=size,
    )  # fmt: skip
    means = standardize(means).flatten(3)
    change = means[:, 1:] - means[:, :-1]
    none = torch.zeros_like(means[:, :1])
    before, behind = torch.cat([none, change], dim=1), torch.cat([change, none], dim=1)
    return torch.cat([means, before, behind], dim=-1).flatten(1, 2)


def position_table(kind: str, grid: TokenGrid, width: int) -> Tensor:
    """Codes of all tokens, float32 [N, width], by `model.positions`."""
    # Whatever device the model is made on: arithmetic on PyTorch's meta device, where models are
    # counted, takes two seconds to import.
    with torch.device("cpu"):
        if kind == "sinusoid_3d":
            return sinusoid_3d(grid, width)
        return sinusoid_1d(torch.arange(grid.tokens), width)


def sinusoid_1d(places: Tensor, width: int) -> Tensor:
    """Sinusoids of one coordinate, float32 [len(places), width]; even columns are sines, odd ones
    cosines. Over the flat token index they are those of VideoMAE's and AdaMAE's code."""
    column = torch.arange(width, dtype=torch.float64)
    rate = torch.pow(10000.0, -2.0 * torch.div(column, 2, rounding_mode="floor") / width)
    angle = places.double()[:, None] * rate
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def sinusoid_3d(grid: TokenGrid, width: int) -> Tensor:
    """Time, row and column each in a third of the columns (AdaMAE's paper): what is at the same
    place at another time is near, so copying over time is easy to learn."""
    third = width // 6 * 2
    widths = (width - 2 * third, third, third)
    axes = torch.meshgrid(
        torch.arange(grid.time), torch.arange(grid.rows), torch.arange(grid.columns), indexing="ij"
    )
    parts = [sinusoid_1d(axis.flatten(), w) for axis, w in zip(axes, widths, strict=True)]
    return torch.cat(parts, dim=1)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Picks tokens by index: [B, N, ...] and int64 [B, k] -> [B, k, ...]."""
    shape = index.shape + (1,) * (tokens.dim() - 2)
    return tokens.gather(1, index.view(shape).expand(*index.shape, *tokens.shape[2:]))


def scatter_tokens(values: Tensor, index: Tensor, tokens: int) -> Tensor:
    """Puts values at their tokens, else 0: [B, k, ...] and int64 [B, k] -> [B, tokens, ...]."""
    shape = index.shape + (1,) * (values.dim() - 2)
    out = values.new_zeros((values.shape[0], tokens, *values.shape[2:]))
    return out.scatter(1, index.view(shape).expand(values.shape), values)


def masked_index(visible: Tensor, tokens: int) -> Tensor:
    """The tokens that are not visible, ascending, int64 [B, tokens - k]; the visible ones,
    int64 [B, k], are distinct per row, in any order."""
    hidden = torch.ones(visible.shape[0], tokens, dtype=torch.int8, device=visible.device)
    hidden.scatter_(1, visible, 0)
    # A stable descending sort puts the hidden tokens first, in index order, with a static shape.
    order = torch.argsort(hidden, dim=1, descending=True, stable=True)
    return order[:, : tokens - visible.shape[1]]


def reconstruction_target(patches: Tensor, target: TargetSettings) -> Tensor:
    """Pixel values that the decoder predicts: (pixels - mean) / scale, as `target_scale`;
    float [B, k, V, 3] in [0, 1] -> float32 [B, k, V * 3]."""
    values = patches.float()
    if target.normalize == "none":
        return values.flatten(2)
    centred = values - values.mean(dim=_normalized_axes(target), keepdim=True)
    return centred.div_(_deviation(centred, target)).flatten(2)


def target_scale(values: Tensor, target: TargetSettings) -> tuple[Tensor, Tensor]:
    """What the pixels of each token, float32 [B, k, V, 3], are normalised by.

    `channel` takes every colour channel of the token on its own and adds epsilon to the unbiased
    deviation (VideoMAE's and AdaMAE's code); `joint` takes all values of the token and adds epsilon
    to the variance (MAE-ST's code); `none` keeps pixels.

    Returns:
        mean and scale, [B, k, 1, 3] or [B, k, 1, 1]; 0 and 1 for `none`.
    """
    if target.normalize == "none":
        return values.new_zeros(()), values.new_ones(())
    mean = values.mean(dim=_normalized_axes(target), keepdim=True)
    return mean, _deviation(values - mean, target)


def _normalized_axes(target: TargetSettings) -> tuple[int, ...]:
    return (-2,) if target.normalize == "channel" else (-2, -1)


def _deviation(centred: Tensor, target: TargetSettings) -> Tensor:
    """Of values whose mean is 0, with epsilon."""
    # Not `var`, which takes three times as long over an inner axis on a CPU.
    squares = centred.square().sum(dim=_normalized_axes(target), keepdim=True)
    variance = squares / (centred.numel() // squares.numel() - 1)
    if target.normalize == "joint":
        return (variance + target.epsilon).sqrt()
    return variance.sqrt() + target.epsilon


def motion_target(motion: Tensor, normalize: str) -> Tensor:
    """TrackMAE's target (Vandeghen et al. 2026): displacements of the points that start in each
    token's place, [B, T', 2 rows, 2 columns, 2] in pixels of the model input -> float32 [B, N, 8].

    `patch` subtracts the token's mean motion and divides by its deviation, per axis, as TrackMAE's
    code does; `none` keeps pixels; `clip` divides by the deviation over the whole clip.
    """
    points = rearrange(motion.float(), "b t (r p) (c q) d -> b (t r c) (p q) d", p=2, q=2)
    if normalize == "patch":
        points = points - points.mean(dim=2, keepdim=True)
        points = points / (points.std(dim=2, keepdim=True) + 1e-6)
    elif normalize == "clip":
        points = points / (points.flatten(1).std(dim=1)[:, None, None, None] + 1e-6)
    return points.flatten(2)


def copy_error(targets: Tensor, grid: TokenGrid) -> Tensor:
    """Error of the better copy of each token: from its place one time slice before or after.

    Targets of all tokens float32 [B, N, V] -> float32 [B, N], in the unit of the reconstruction
    error; infinite with a single slice.
    """
    slices = targets.unflatten(1, (grid.time, grid.per_slice))
    change = (slices[:, 1:] - slices[:, :-1]).square_().mean(dim=-1)  # [B, time - 1, places]
    none = change.new_full((len(targets), 1, grid.per_slice), torch.inf)
    before, after = torch.cat([none, change], dim=1), torch.cat([change, none], dim=1)
    return torch.minimum(before, after).flatten(1)
