"""Grids of displacements: averaging onto a grid, summing over frames, following points."""

from __future__ import annotations

from math import isqrt

import numpy as np


def grid_points(grid: int) -> np.ndarray:
    """Points (x, y) in frame widths and heights, float32 [grid * grid, 2], row by row."""
    return _square((np.arange(grid, dtype=np.float32) + 0.5) / grid)


def track_queries(grid: int) -> np.ndarray:
    """Points to follow for a grid of tracks: half as many per side, float32 [Q * Q, 2], row by row.

    TrackMAE tracks 14 x 14 points and interpolates to 28 x 28. The outermost points are those of
    the grid itself, so that interpolation between them gives every point of the grid in its place.
    """
    queries = max(2, -(-grid // 2))
    return _square((np.linspace(0.5, grid - 0.5, queries) / grid).astype(np.float32))


def upsample_tracks(moves: np.ndarray, grid: int) -> np.ndarray:
    """Displacements of a grid of points, float32 [S, grid, grid, 2], out of those of its
    `track_queries`, [S, Q, Q, 2].

    TrackMAE interpolates positions bilinearly, corners on corners (`align_corners`); that is
    linear, so displacements can be interpolated instead.
    """
    queries = moves.shape[1]
    places = _square((np.linspace(0, queries - 1, grid) + 0.5) / queries)
    return np.stack([sample_field(move, places).reshape(grid, grid, 2) for move in moves])


def area_average(raster: np.ndarray, cell: int, height: int, width: int, grid: int) -> np.ndarray:
    """Mean of a raster over each cell of a grid that covers the frame.

    Args:
        raster: [rows, columns, 2], one value per square of `cell` pixels from the upper left
            corner; the last squares may reach over the frame's edge.
        height, width: of the frame, pixels.

    Returns:
        float32 [grid, grid, 2].
    """
    rows = _average_rows(raster, cell, height, grid)
    return _average_rows(rows.swapaxes(0, 1), cell, width, grid).swapaxes(0, 1).astype(np.float32)


def as_stored(fields: np.ndarray) -> np.ndarray:
    """Fields as a cache gives them back, so that a run is the same with and without one, float32.

    Displacements of more than a whole frame are no motion and are cut off there.
    """
    return np.clip(fields, -1, 1).astype(np.float16).astype(np.float32)


def clip_steps(fields: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Displacement from each clip frame to the next: the sum over the video frames between.

    Args:
        fields: float32 [F, G, G, 2], displacement from video frame f-1 to f.
        indices: int64 [T], ascending, below F.

    Returns:
        float32 [T, G, G, 2]; entry j leads from clip frame j-1 to j, entry 0 repeats entry 1.
    """
    first, last = int(indices[0]), int(indices[-1])
    total = np.zeros((last - first + 1, *fields.shape[1:]), np.float64)
    np.cumsum(fields[first + 1 : last + 1], axis=0, dtype=np.float64, out=total[1:])
    steps = np.zeros((len(indices), *fields.shape[1:]), np.float32)
    steps[1:] = np.diff(total[indices - first], axis=0)
    steps[0] = steps[min(1, len(steps) - 1)]
    return steps


def slice_means(steps: np.ndarray, tubelet: int) -> np.ndarray:
    """Mean step of every `tubelet` frames, [T // tubelet, G, G, 2]."""
    slices = len(steps) // tubelet
    return steps[: slices * tubelet].reshape(slices, tubelet, *steps.shape[1:]).mean(axis=1)


def follow_fields(fields: np.ndarray, indices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Carries points along the displacements, video frame by video frame.

    A point reads its displacement where it stands before the step. Where frames differ by more
    than the width of an edge, points just ahead of a moving edge go along and points just behind
    it stay.

    Args:
        fields: float32 [F, G, G, 2], displacement from video frame f-1 to f.
        indices: int64 [S], video frames at which the places are wanted.
        points: float32 [Q, 2], places in the first of these.

    Returns:
        float32 [S, Q, 2], places (x, y) in frame widths and heights; they may leave the frame.
    """
    places = [points]
    for number in range(int(indices[0]) + 1, int(indices[-1]) + 1):
        points = points + sample_field(fields[number], points)
        places.append(points)
    return np.stack([places[index] for index in (indices - indices[0]).tolist()])


def sample_field(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Bilinear lookup at points [Q, 2], (x, y) in frame widths and heights; outside, the nearest
    edge counts. The field, [rows, columns, 2], stands at the centres of equal cells that cover the
    frame."""
    rows, columns = field.shape[:2]
    x = np.clip(points[:, 0] * columns - 0.5, 0, columns - 1)
    y = np.clip(points[:, 1] * rows - 0.5, 0, rows - 1)
    left, top = x.astype(np.int64), y.astype(np.int64)
    right, lower = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    across, down = (x - left)[:, None], (y - top)[:, None]
    above = field[top, left] * (1 - across) + field[top, right] * across
    below = field[lower, left] * (1 - across) + field[lower, right] * across
    return (above * (1 - down) + below * down).astype(np.float32)


def track_slices(positions: np.ndarray) -> np.ndarray:
    """Displacements between consecutive tracker frames; the last slice repeats the one before.

    Of a square of points float32 [S, Q * Q, 2] -> float32 [S, Q, Q, 2]; rest where there is one
    slice only.
    """
    moves = np.diff(positions, axis=0)
    moves = np.concatenate([moves, moves[-1:] if len(moves) else np.zeros_like(positions)])
    side = isqrt(positions.shape[1])
    return moves.reshape(-1, side, side, 2).astype(np.float32)


def _square(places: np.ndarray) -> np.ndarray:
    """All pairs (x, y) of these, [S * S, 2], row by row."""
    y, x = np.meshgrid(places, places, indexing="ij")
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def _average_rows(raster: np.ndarray, cell: int, size: int, grid: int) -> np.ndarray:
    """Averages the first axis onto the grid; sums up to each bound, then takes differences."""
    bounds = np.arange(grid + 1) * size / (grid * cell)
    whole = np.minimum(bounds.astype(np.int64), len(raster) - 1)
    share = (bounds - whole)[:, None, None]
    total = np.zeros((len(raster) + 1, *raster.shape[1:]))
    np.cumsum(raster, axis=0, out=total[1:])
    return np.diff(total[whole] + share * raster[whole], axis=0) * (grid * cell / size)
