"""What arms of a comparison cost, and the steps that make them cost the same."""

from __future__ import annotations

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tats_ray.config import Config
from tats_ray.evaluation.benchmark import Bench
from tats_ray.models.precision import default_device


def step_flops(config: Config) -> float:
    """Floating-point operations of one serial training step: forward and backward of the
    autoencoder, of the masker, and of rollouts and PPO where there are some. Decoding, motion
    estimation and element-wise work are not counted."""
    bench = Bench(config, default_device())
    # PyTorch counts no operations in its fused attention on a CPU; the plain one does the same.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        bench.step()
    return float(counter.get_total_flops())


def equal_cost_steps(steps: int, reference: float, cost: float) -> int:
    """Steps of `cost` each that together cost as much as `steps` of `reference` each."""
    return max(1, round(steps * reference / cost))
