"""AdaMAE's sampler and loss against their formulas, written out here without our modules."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical

from tats_ray.config import TokenGrid
from tats_ray.models.samplers import AdaMAESampler, PolicyOutput, sampling_loss
from tats_ray.rl.ppo import PPOBatch, compute_advantages, ppo_loss
from tats_ray.training.mae_trainer import MAETrainer
from tests.conftest import random_clips, tiny_config

GRID = TokenGrid(4, 3, 3)
WIDTH, HEADS, BATCH, MASKED = 16, 2, 3, 20
CPU = torch.device("cpu")


def _sampler():
    torch.manual_seed(0)
    sampler = AdaMAESampler(WIDTH, GRID, heads=HEADS).eval()
    for parameter in sampler.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return sampler


def _layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def _reference(w, tokens, dropout=0.0):
    """softmax(linear(block(x + positions))) by the book.

    The code drops what the attention's and the feed-forward part's last layers give, nothing else.
    """
    x = tokens + w["position_embedding"]
    h = _layer_norm(x, w["block.norm1.weight"], w["block.norm1.bias"])
    q, k, v = (h @ w["block.attn.qkv.weight"].T).split(WIDTH, dim=-1)
    heads = []
    for head in range(HEADS):
        cut = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        scores = q[..., cut] @ k[..., cut].transpose(1, 2) / math.sqrt(WIDTH // HEADS)
        heads.append(torch.softmax(scores, dim=-1) @ v[..., cut])
    h = torch.cat(heads, -1) @ w["block.attn.proj.weight"].T + w["block.attn.proj.bias"]
    x = x + F.dropout(h, dropout)
    h = _layer_norm(x, w["block.norm2.weight"], w["block.norm2.bias"])
    h = h @ w["block.mlp.fc1.weight"].T + w["block.mlp.fc1.bias"]
    h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
    h = h @ w["block.mlp.fc2.weight"].T + w["block.mlp.fc2.bias"]
    x = x + F.dropout(h, dropout)
    return torch.softmax((x @ w["head.weight"].T + w["head.bias"]).squeeze(-1), dim=-1)


def _inputs():
    torch.manual_seed(1)
    tokens = torch.randn(BATCH, GRID.tokens, WIDTH)
    targets = torch.stack([torch.randperm(GRID.tokens)[:MASKED] for _ in range(BATCH)])
    return tokens, targets, torch.rand(BATCH, MASKED)


def test_loss_and_gradients_equal_the_formula():
    sampler = _sampler()
    tokens, targets, error = _inputs()
    loss = 1e-4 * sampling_loss(sampler(tokens), targets, error)
    loss.backward()

    weights = {name: p.detach().clone().requires_grad_() for name, p in sampler.named_parameters()}
    p = _reference(weights, tokens)
    index = torch.arange(GRID.tokens).expand(BATCH, -1)
    log_p = Categorical(probs=p[:, None, :].expand(-1, GRID.tokens, -1)).log_prob(index)
    per_clip = torch.stack([-(log_p[b, targets[b]] * error[b]).mean() for b in range(BATCH)])
    wanted = 1e-4 * per_clip.mean()
    wanted.backward()

    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    for name, parameter in sampler.named_parameters():
        assert torch.allclose(parameter.grad, weights[name].grad, rtol=1e-4, atol=1e-6), name


def test_dropout_is_where_the_code_has_it():
    """The same generator drops the same values in both, if they drop in the same places."""
    sampler = _sampler().train()
    tokens, _, _ = _inputs()
    torch.manual_seed(7)
    p = sampler(tokens).exp()
    torch.manual_seed(7)
    wanted = _reference(sampler.state_dict(), tokens, dropout=0.1)
    assert torch.allclose(p, wanted, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(p, _reference(sampler.state_dict(), tokens), rtol=0.1)


def test_the_plain_policy_gradient_is_the_same_loss():
    """AdaMAE is TATS's objective without ratio, baseline and whitening."""
    config = tiny_config(
        "rl.objective=policy_gradient", "rl.baseline=none", "rl.whiten=none",
        "rl.entropy_coefficient=0",
    )  # fmt: skip
    tokens, targets, error = _inputs()
    log_probs = _sampler()(tokens)
    value = torch.zeros(BATCH)
    advantages = compute_advantages(error[:, None], value, config.rl)
    batch = PPOBatch(
        tokens, log_probs.detach(), torch.zeros(BATCH, 1, 1, dtype=torch.int64), targets[:, None],
        advantages.advantage, advantages.value_target,
    )  # fmt: skip
    loss = ppo_loss(PolicyOutput(log_probs, value), batch, config.rl).policy
    assert loss.item() == pytest.approx(sampling_loss(log_probs, targets, error).item(), rel=1e-6)


@pytest.mark.parametrize("detach", [True, False])
def test_the_sampling_loss_reaches_the_patch_embedding_only_if_asked(detach):
    config = tiny_config(
        "masking.system=adamae", f"masking.detach={str(detach).lower()}",
        "masking.heads=2", "masking.dropout=0",
    )  # fmt: skip
    trainer = MAETrainer(config, CPU)
    pixels = torch.rand(2, 3, 8, 32, 32)
    noise = torch.randn(2, config.grid.tokens)
    losses = trainer.parts(trainer.mae.patches(pixels), noise, None, None, None).losses
    losses["sampling"].backward()
    gradient = trainer.mae.patch_embedding.projection.weight.grad
    assert (gradient is None) == detach
    assert all(p.grad is None for p in trainer.mae.encoder.parameters())
    assert trainer.parts.sampler.head.weight.grad.abs().sum() > 0


def test_harder_tokens_become_likelier():
    """Constant error on the left, none on the right: the sampler learns to look left."""
    sampler = AdaMAESampler(WIDTH, GRID, heads=2, dropout=0.0)
    optimizer = torch.optim.Adam(sampler.parameters(), lr=1e-2)
    left = torch.arange(GRID.tokens) % 3 == 0
    torch.manual_seed(0)
    for _ in range(60):
        tokens = torch.randn(8, GRID.tokens, WIDTH)
        targets = torch.stack([torch.randperm(GRID.tokens)[:MASKED] for _ in range(8)])
        loss = sampling_loss(sampler(tokens), targets, left[targets].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    share = sampler(torch.randn(8, GRID.tokens, WIDTH)).exp()[:, left].sum(dim=1)
    assert share.min() > 0.6  # 1/3 at chance


def test_dropout_repeats_after_a_resume():
    config = tiny_config("masking.system=adamae", "masking.heads=2")
    first, second = MAETrainer(config, CPU), MAETrainer(config, CPU)
    for step in range(3):
        first.train_step(random_clips(config, 4, first=4 * step, seed=step))
        if step == 0:
            second.load(first.state())
            torch.manual_seed(99)  # another process has other numbers in torch's generator
        else:
            second.train_step(random_clips(config, 4, first=4 * step, seed=step))
    for name, value in first.state().files["auxiliary"].items():
        assert (value == second.state().files["auxiliary"][name]).all(), name
    one, two = (trainer.state().files["mae"] for trainer in (first, second))
    assert (one["decoder.head.bias"] == two["decoder.head.bias"]).all()
