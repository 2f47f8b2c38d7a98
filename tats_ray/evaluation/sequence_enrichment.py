"""Motion enrichment of single videos, beside what needs no learning and what knows no motion."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tats_ray.config.geometry import TokenGrid
from tats_ray.evaluation.held_out import HeldOut, enrichment, token_cover
from tats_ray.evaluation.inspection import Inspector
from tats_ray.masking.difference import token_change

_DRAWS = 16  # masks of a clip that its enrichment is the mean of


@dataclass(frozen=True)
class SequenceEnrichment:
    """Enrichment of one clip at the run's number of visible tokens; nan where no object is shown.

    The last three take the tokens with the highest scores: those nearest to the middle of the
    picture, and those that differ most from the slice before (`token_change`).
    """

    masks: float  # the run's masks
    frozen: float  # its masks of the clip and the object that stand still at the middle frame
    centre: float
    difference: float
    compensated: float  # difference without the camera's motion


def sequence_enrichment(inspector: Inspector, clips: HeldOut) -> list[SequenceEnrichment]:
    """Of every clip; there must be ground truth of them all."""
    still = freeze(clips, inspector.config.model.tubelet, inspector.config.model.patch)
    found = []
    for clip in range(len(clips)):
        one, frozen = (part.rows(clip, clip + 1) for part in (clips, still))
        fixed = fixed_enrichment(one, inspector.config.grid, inspector.config.visible)
        found.append(
            SequenceEnrichment(
                _mean_enrichment(inspector, one), _mean_enrichment(inspector, frozen), **fixed
            )
        )
    return found


def fixed_enrichment(clips: HeldOut, grid: TokenGrid, visible: int) -> dict[str, float]:
    """Enrichment of what needs no run: `centre`, `difference` and `compensated`."""
    assert clips.moving is not None, "enrichment needs ground truth"
    scores = {
        "centre": -centre_distance(grid).expand(len(clips), -1),
        "difference": token_change(clips.pixels, grid, compensate=False),
        "compensated": token_change(clips.pixels, grid, compensate=True),
    }
    return {
        name: enrichment(score.topk(visible, dim=1).indices, clips.moving)
        for name, score in scores.items()
    }


def centre_distance(grid: TokenGrid) -> Tensor:
    """Distance of each token from the middle of the picture in tokens, float32 [N]; of equal ones
    the earlier is a little less."""
    rows, columns = (torch.arange(side) - (side - 1) / 2 for side in (grid.rows, grid.columns))
    distance = torch.hypot(rows[:, None], columns).flatten().repeat(grid.time)
    return distance + torch.linspace(0, 1e-4, grid.tokens)


def freeze(clips: HeldOut, tubelet: int, patch: int) -> HeldOut:
    """The clips at a standstill: every frame, and its object, is the middle one; nothing moves."""
    assert clips.objects is not None, "enrichment needs ground truth"
    frames = clips.pixels.shape[2]
    middle = torch.full((frames,), frames // 2)
    objects = clips.objects[:, :, middle]
    return replace(
        clips,
        pixels=clips.pixels[:, :, middle],
        motion=None if clips.motion is None else torch.zeros_like(clips.motion),
        moving=token_cover(objects[:, 0], tubelet, patch),
        objects=objects,
    )


def mean_over_sequences(found: list[SequenceEnrichment]) -> SequenceEnrichment:
    """Mean of each figure over the clips that show an object."""
    table = np.array([list(asdict(one).values()) for one in found])
    return SequenceEnrichment(*(float(np.mean(c[~np.isnan(c)])) for c in table.T))


def _mean_enrichment(inspector: Inspector, clip: HeldOut) -> float:
    """Over several draws of the run's masks."""
    assert clip.moving is not None, "enrichment needs ground truth"
    drawn = [inspector.select(clip, draw)[0] for draw in range(_DRAWS)]
    return enrichment(torch.cat(drawn), clip.moving.expand(_DRAWS, -1))
