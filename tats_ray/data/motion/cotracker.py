"""CoTracker3 (Karaev et al. 2024), the tracker of TrackMAE.

Its code and weights are licensed CC-BY-NC 4.0 and are no part of this package: torch.hub fetches
both on first use and finds them in its own cache afterwards, also without a network.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tats_ray.errors import MotionPriorError

# A fixed commit: the code that runs is known, and a cached copy is used without asking GitHub.
_REPOSITORY = "facebookresearch/co-tracker:82e02e8029753ad4ef13cf06be7f4fc5facdda4d"
_MODEL = "cotracker3_offline"


class CoTracker3:
    """Follows points through all frames at once; what it says of visibility is left unused.

    Its own query grid is not centred on patches, so places are always given to it.
    """

    def __init__(self, path: str) -> None:
        """Loads the model, once per process.

        Raises:
            MotionPriorError: it can be had neither from the network nor from the cache.
        """
        try:
            self._model, self._device = _load()
        # The network, the archive, the weights and their code each raise types of their own.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise MotionPriorError(
                path,
                f"CoTracker3 cannot be loaded ({reason}); run torch.hub.load('{_REPOSITORY}', "
                f"'{_MODEL}') once with a network, or set data.motion.source=lucas_kanade",
            ) from None

    def track(self, frames: np.ndarray, queries: np.ndarray) -> np.ndarray:
        import torch

        if len(frames) == 1:
            return queries[None].astype(np.float32)
        size = np.array([frames.shape[2], frames.shape[1]], np.float32)
        start = np.zeros((1, len(queries), 3), np.float32)  # frame, x, y
        start[0, :, 1:] = queries * size - 0.5
        pixels = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))[None]
        with torch.inference_mode():
            tracks, _ = self._model(
                torch.from_numpy(pixels).float().to(self._device),
                queries=torch.from_numpy(start).to(self._device),
            )
        return ((tracks[0].float().cpu().numpy() + 0.5) / size).astype(np.float32)


@cache
def _load() -> tuple[Any, str]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch.hub.load(_REPOSITORY, _MODEL, trust_repo=True, skip_validation=True)
    return model.to(device).eval(), device
