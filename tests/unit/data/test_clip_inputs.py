"""The noise of masks."""

import numpy as np
import torch

from tats_ray.masking.selection import draw_without_replacement
from tats_ray.training.policy import build_inputs
from tests.conftest import tiny_config

CPU = torch.device("cpu")
CLIPS = 4000


def _noise(*settings, draw=0):
    inputs = build_inputs(tiny_config(*settings))
    return inputs.mask_noise(7, CLIPS, CPU, draw)


def test_tokens_of_a_slice_share_noise_beside_their_own():
    grid = tiny_config().grid
    own, both = _noise(draw=1), _noise("masking.slice_noise=3", draw=1)
    shared = ((both - own) / 3).view(CLIPS, grid.time, grid.per_slice)
    assert torch.allclose(shared, shared[..., :1].expand_as(shared), atol=1e-5)
    values = shared[..., 0].numpy()
    assert abs(values.mean() - np.euler_gamma) < 0.05  # standard Gumbel
    assert abs(values.std() - np.pi / 6**0.5) < 0.05
    between = np.corrcoef(values.T) - np.eye(grid.time)
    assert abs(between).max() < 0.06, "slices and draws have noise of their own"
    assert not torch.equal(both, _noise("masking.slice_noise=3"))


def test_a_draw_lies_in_few_slices_and_is_even_over_many_clips():
    config = tiny_config("masking.slice_noise=6")
    grid = config.grid
    uniform = torch.zeros(CLIPS, grid.tokens)

    def slices(noise):
        drawn = draw_without_replacement(uniform, noise, config.visible) // grid.per_slice
        return torch.nn.functional.one_hot(drawn, grid.time).sum(1)  # visible tokens of each

    spread, clustered = slices(_noise()), slices(_noise("masking.slice_noise=6"))
    used = (clustered > 0).float().sum(1).mean()
    assert config.visible == grid.per_slice, "one slice could hold all of them"
    assert used < 1.6
    assert (spread > 0).float().sum(1).mean() > 2.5
    assert torch.allclose(clustered.float().mean(0), torch.tensor(1.0), atol=0.1)
